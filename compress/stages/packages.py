"""The stages that package: each variant exported, quantized and checked."""

from __future__ import annotations

from pathlib import Path

from compress.environment import EXPORTING, versions
from compress.packaging import PackageResult, make_package
from compress.stages.context import RunContext
from compress.variants import Variant, parents


def make_packages(run: RunContext) -> dict[str, PackageResult]:
    """Export, quantize and check every variant: results by variant id."""
    return {variant.id: _make_one(run, variant) for variant in run.packaged}


def _make_one(run: RunContext, variant: Variant) -> PackageResult:
    fp32 = None if variant.precision == "fp32" else Variant(variant.model, variant.role, "fp32").package
    card = {
        "name": f"{run.recipe.name}/{variant.id}",
        "recipe": run.recipe.name,
        "data": {"source": run.data.source, "fingerprint": run.data.fingerprint},
        "parents": parents(variant),
    }
    inputs = {
        "model": run.rundir.digest(variant.model_folder),
        "fp32": fp32 and run.rundir.digest(fp32),
        "precision": variant.precision,
        "role": variant.role,
        "exporters": versions(EXPORTING),
    }

    def work(folder: Path) -> PackageResult:
        classifier = run.classifier(variant.model_folder)
        return make_package(
            variant,
            classifier,
            run.path / fp32 if fp32 else None,
            run.inputs("calibration", classifier),
            run.data.splits["validation"].content,
            card,
            folder,
        )

    splits = ("calibration", "validation")
    return run.stage(variant.package, inputs, PackageResult, work, output=variant.package, splits=splits)
