"""A search on a user's own ONNX classifier: its precisions and runtime settings, with the given graph as baseline.

There is no network to train, so there are no students. What it is compared with is its own fp32 graph on ONNX Runtime,
which stays as it was given; the other precisions are made of it with the rewrites that are measured faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.console import Console
from compress.environment import EXPORTING, versions
from compress.evidence.assemble import assemble
from compress.graph.choose import Tried, told
from compress.onnx_model import OnnxClassifier, import_onnx, package_onnx
from compress.optimize.bench import Bench
from compress.optimize.config import OptimizeConfig
from compress.optimize.ledger import Ledger
from compress.origins import told_of_origins
from compress.packaging import BATCH_TOLERANCE, PackageResult, batch_difference, explain, rewritten_for
from compress.pipeline import describe, run_info
from compress.quantize.inspect import check_changed, describe_graph
from compress.quantize.precisions import Quantized, convert
from compress.recipe import TEACHER, Recipe, Student
from compress.report.schema import Choice, Report
from compress.report.write import write_payloads, write_report
from compress.rundir import RunDir, open_run
from compress.stages.choosing import choose_variant, gather_evidence
from compress.stages.context import RunContext
from compress.stages.measuring import predict_split, predict_variant, time_variants, weigh_variants
from compress.stages.packages import meaning_settings, quantize_settings, set_serving, with_meaning
from compress.variants import Variant
from serve.errors import UserError
from serve.manifest import Manifest, ServingConfig
from serve.package import MODEL, load_package, write_package
from serve.predictor import Predictor
from train.data import Data
from train.fit_result import FitResult
from train.inputs import prepare_inputs
from train.models import onnx_file
from train.sources import expand

PREFIX = "onnx:"
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
GIVEN = Variant(TEACHER, "teacher", "fp32", taught_by=())


def is_onnx(recipe: Recipe) -> bool:
    """Whether the recipe's teacher is a graph."""
    return recipe.teacher.model.startswith(PREFIX)


def read_given(recipe: Recipe, data: Data) -> OnnxClassifier:
    """The user's model, its scores in the order of the data's labels. Raises UserError."""
    file = recipe.teacher.model.removeprefix(PREFIX)
    students = recipe.students or (recipe.optimize is not None and recipe.optimize.students)
    if students:
        raise UserError(
            f"'{recipe.teacher.model}' is a graph for serving, which can teach no students",
            "leave out [[students]] and [[optimize.students]], or give the model as safetensors",
        )
    given = import_onnx(expand(file), labels=data.classes)
    if given.preprocessing.kind != data.task:
        raise UserError(
            f"{file} is for {given.preprocessing.kind}s, the data are {data.task}s",
            f"give data of {given.preprocessing.kind}s, the kind that it was trained for",
        )
    if given.precision != "fp32":
        raise UserError(
            f"{file} is {given.precision} already, and other precisions are made from fp32",
            "give the fp32 graph that it was made from",
        )
    return given


class OnnxBench(Bench):
    """A bench whose teacher is the given graph."""

    def __init__(
        self,
        recipe: Recipe,
        config: OptimizeConfig,
        data: Data,
        rundir: RunDir,
        console: Console,
        ledger: Ledger,
        given: OnnxClassifier,
    ) -> None:
        super().__init__(recipe, config, data, rundir, console, ledger)
        self.given = given

    def teach(self, students: Sequence[Student] = ()) -> FitResult:
        """Package the graph as it is, and ask it about validation; it has no `students`."""
        run = self.context()
        self._package(run, GIVEN)
        predict_variant(run, GIVEN, "validation")
        self._baseline = run.scores(GIVEN, "validation")
        self.check_labels()
        return about(self.given)

    def _package(self, run: RunContext, variant: Variant) -> PackageResult:
        return package(run, self.given, variant)


def about(given: OnnxClassifier) -> FitResult:
    """The given model in the terms of a training that there was not here."""
    weights = onnx.load_from_string(given.model).graph.initializer
    counts = [int(np.prod(tensor.dims)) for tensor in weights if tensor.data_type in _FLOATS]
    params = sum(count for count in counts if count > 1)  # without scales
    note = "given as an ONNX file; multiplications are not counted"
    return FitResult(epochs=[], best_epoch=0, params=params, macs=0, notes=(note,))


def package(run: RunContext, given: OnnxClassifier, variant: Variant) -> PackageResult:
    """The package of the graph at one precision, as a stage."""
    fp32 = GIVEN.package
    inputs = {
        "model": onnx_file.origin(run.recipe.teacher.model.removeprefix(PREFIX), {}),
        "labels": given.labels,
        "preprocessing": given.preprocessing,
        "fp32": None if variant.precision == "fp32" else run.rundir.digest(fp32),
        "precision": variant.precision,
        "exporters": versions(EXPORTING),
        **quantize_settings(run, variant),
        **meaning_settings(run, None),
        **({} if variant.precision == "fp32" else {"graph": run.recipe.graph}),
    }

    def work(folder: Path) -> PackageResult:
        probe = run.data.splits["validation"].content
        card: dict[str, Any] = {"name": f"{run.recipe.name}/{variant.id}", "recipe": run.recipe.name, "parents": []}
        collapse, tried = "", list[Tried]()
        if variant.precision == "fp32":
            final = package_onnx(given, folder, probe, card)
            parity, made = given.parity, Quantized(given.model)
        else:
            made, tried = _quantized(run, given, variant)
            final = _written(given, variant, made.model, probe, card, folder)
            parent = Predictor.load(run.path / fp32)
            parity, collapse = explain(final, parent, probe, GIVEN.id, given.preparer())
            if collapse:
                run.console.detail(f"{variant.id}: {collapse}")
        result = PackageResult(
            package_id=final.package.manifest.id,
            size_bytes=final.package.size_bytes,
            parity=parity,
            batch_invariant=final.package.manifest.batch_invariant,
            batch_difference=batch_difference(final, probe),
            graph=describe_graph(made.model) | ({"rewrites": told(tried)} if tried else {}),
            preprocessing=given.preprocessing,
            notes=made.notes,
            tried=made.trace,
            collapse=collapse,
            rewrites=tried,
        )
        return with_meaning(run, folder, result, None)

    splits = ("calibration", "validation")
    return run.stage(variant.package, inputs, PackageResult, work, output=variant.package, splits=splits)


def _quantized(run: RunContext, given: OnnxClassifier, variant: Variant) -> tuple[Quantized, list[Tried]]:
    """The graph at another precision, and what was tried on it before."""
    calibration = prepare_inputs(run.data.splits["calibration"], given.preparer())
    fp32, tried = load_package(run.path / GIVEN.package).files[MODEL], list[Tried]()
    config, probe = run.recipe.quantize, run.data.splits["validation"].content
    if run.recipe.graph.rewrites == "measured" and not config.exclude:  # which names nodes, and they must stay
        fp32, tried = rewritten_for(fp32, variant.precision, calibration, config, probe, given.preparer())
    made = convert(fp32, variant.precision, calibration, config, run.console.detail)
    check_changed(made.model, variant.precision, config.least_changed(variant.precision))
    return made, tried


def _written(
    given: OnnxClassifier, variant: Variant, model: bytes, probe: Sequence[bytes], card: dict[str, Any], folder: Path
) -> Predictor:
    """The package, marked as what it is: one whose answers depend on the batch, or not."""
    manifest = Manifest(
        task=given.preprocessing.kind,
        labels=given.labels,
        preprocessing=given.preprocessing,
        precision=variant.precision,
        batch_invariant=True,
        files={},
    )
    contents = {MODEL: model, **given.files}
    draft = Predictor(write_package(folder, manifest, contents, card, ServingConfig()))
    if batch_difference(draft, probe) <= BATCH_TOLERANCE:
        return draft
    alone = manifest.model_copy(update={"batch_invariant": False})
    return Predictor(write_package(folder, alone, contents, card, ServingConfig()))


def confirm(
    recipe: Recipe,
    data: Data,
    given: OnnxClassifier,
    folder: Path,
    console: Console,
    command: str | None,
    choice: Choice,
) -> Report:
    """The one pass over test, as `compress.pipeline.run` makes it, with the given graph as baseline."""
    described = describe(recipe, data, command)
    with open_run(folder, described, console.stage) as rundir:
        run = RunContext(recipe, data, rundir, console)
        run.packaged = [variant if variant.precision != "fp32" else GIVEN for variant in run.packaged]
        run.variants = list(run.packaged)
        packages = {variant.id: package(run, given, variant) for variant in run.packaged}
        set_serving(run, [run.path / variant.package for variant in run.packaged])
        predict_split(run, "validation")
        latency = time_variants(run)
        memory = weigh_variants(run)
        frozen = choose_variant(run, packages, {}, latency, choice)
        predict_split(run, "test")
        evidence = gather_evidence(run, {TEACHER: about(given)}, packages, latency, memory)
        info, accept, shown = run_info(described, rundir), recipe.accept, recipe.report.examples
        report = assemble(info, accept, data, frozen, evidence, recipe.seed, run.threads, GIVEN.id, shown)
        report = report.model_copy(update=told_of_origins(recipe))
        write_payloads(report, data, folder)
        write_report(report, folder)
        run.forget_removed()
    return report
