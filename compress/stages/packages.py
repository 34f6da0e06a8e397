"""The stages that package: each variant exported, quantized and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from compress.environment import EXPORTING, versions
from compress.evidence.calibrate import Meaning, write_meaning
from compress.packaging import PackageResult, make_package
from compress.quantize.config import is_integer
from compress.quantize.providers import reduced_range
from compress.stages.context import RunContext, held_out
from compress.variants import Variant, parents
from serve.package import read_manifest, read_serving, write_serving


def make_packages(run: RunContext, before: dict[str, PackageResult]) -> dict[str, PackageResult]:
    """Export, quantize and check every variant: results by variant id. `before` are the packages before a refit."""
    made = {variant.id: make_one(run, variant, before=before.get(variant.id)) for variant in run.packaged}
    set_serving(run, [run.path / variant.package for variant in run.packaged])
    return made


def set_serving(run: RunContext, packages: list[Path]) -> None:
    """Have packages run as the recipe says. Where it says nothing, what a user wrote into serving.json stays.

    Packages whose answers depend on the batch are never batched, whatever the recipe says.
    """
    if (wanted := run.recipe.serving) is None:
        return
    for package in packages:
        own = wanted if wanted.max_batch == 1 or read_manifest(package).batch_invariant else wanted.unbatched()
        if read_serving(package) != own:
            write_serving(package, own)


def make_held_out_packages(run: RunContext) -> dict[str, PackageResult]:
    """The same, of those whose models were refitted, from the weights before: what the choice can be made with."""
    refitted = [variant for variant in run.packaged if variant.model in run.refitted]
    made = {variant.id: make_one(run, variant, held_out) for variant in refitted}
    set_serving(run, [run.path / held_out(variant.package) for variant in refitted])
    return made


def make_one(
    run: RunContext, variant: Variant, place: Callable[[str], str] = str, before: PackageResult | None = None
) -> PackageResult:
    """The package of `variant`; model and packages lie where `place` says in the stead of their usual folders.

    What its scores mean is learned on validation, which a refitted model has seen: it takes that of `before`.
    """
    model, package = place(variant.model_folder), place(variant.package)
    fp32 = None if variant.precision == "fp32" else place(Variant(variant.model, variant.role, "fp32").package)
    card = {
        "name": f"{run.recipe.name}/{package.removeprefix('packages/')}",
        "recipe": run.recipe.name,
        "data": {"source": run.data.source, "fingerprint": run.data.fingerprint},
        "parents": parents(variant),
    }
    inputs = {
        "model": run.rundir.digest(model),
        "fp32": fp32 and run.rundir.digest(fp32),
        "precision": variant.precision,
        "role": variant.role,
        "exporters": versions(EXPORTING),
        **quantize_settings(run, variant),
        **meaning_settings(run, before),
        "graph": run.recipe.graph,
    }

    def work(folder: Path) -> PackageResult:
        classifier = run.classifier(model)
        made = make_package(
            variant,
            classifier,
            run.path / fp32 if fp32 else None,
            run.inputs("calibration", classifier),
            run.data.splits["validation"].content,
            card,
            folder,
            run.recipe.quantize,
            run.console.detail,
            rewrites=run.recipe.graph.rewrites == "measured",
        )
        return with_meaning(run, folder, made, before)

    splits = ("calibration", "validation")
    return run.stage(package, inputs, PackageResult, work, output=package, splits=splits)


def quantize_settings(run: RunContext, variant: Variant) -> dict[str, Any]:
    """What [quantize] says of this precision beside its defaults; nothing where it says nothing."""
    config, precision = run.recipe.quantize, variant.precision
    settings = config.deciding(precision)
    if is_integer(precision) and config.reduce_range == "auto" and reduced_range(config)[0]:
        settings["reduce_range"] = True  # another processor might decide otherwise
    return {"quantize": settings} if settings else {}


def meaning_settings(run: RunContext, before: PackageResult | None) -> dict[str, Any]:
    """What decides the temperature and the threshold of a package; empty where the recipe asks for neither."""
    recipe = run.recipe
    if not recipe.calibrate.temperature and recipe.abstain is None:
        return {}
    asked: dict[str, Any] = {"calibrate": recipe.calibrate, "abstain": recipe.abstain}
    return asked if before is None else {**asked, "meaning": [before.temperature, before.abstention]}


def with_meaning(run: RunContext, folder: Path, made: PackageResult, before: PackageResult | None) -> PackageResult:
    """The package in `folder` with a temperature and a threshold, where the recipe asks for them."""
    if not meaning_settings(run, before):
        return made
    known = None if before is None else Meaning(temperature=before.temperature, abstention=before.abstention)
    recipe, items = run.recipe, run.data.splits["validation"]
    found, package_id = write_meaning(folder, items, recipe.calibrate, recipe.abstain, known)
    update = {"package_id": package_id, "temperature": found.temperature, "abstention": found.abstention}
    return made.model_copy(update=update)
