"""The stages that measure every variant: its predictions, its latency, its memory."""

from __future__ import annotations

from pathlib import Path

from compress.environment import hardware
from compress.measure.latency import LatencyResult, count_rounds, measure_latency
from compress.measure.memory import MemoryResult, measure_memory
from compress.measure.predictions import PredictionResult, predict
from compress.quantize.collapse import check_label_map
from compress.stages.context import RunContext, predictions_file, weights_stage
from compress.variants import BASELINE, Variant

_MEMORY_ITEMS = 32
_TIMES = "total, compute and processor; each call after another of its variant"  # what changes is measured again


def predict_split(run: RunContext, split: str) -> None:
    """Score a split with every variant, on the bytes that a request would carry."""
    for variant in run.variants:
        predict_variant(run, variant, split)
        if variant.id == BASELINE and split == "validation":
            answers, truth = run.scores(variant, split).argmax(axis=1), run.data.splits[split].labels
            check_label_map(answers, truth, run.data.classes, variant.model)


def predict_variant(run: RunContext, variant: Variant, split: str) -> None:
    """Score a split with one variant.

    Validation is scored by what never saw it: of a refitted model, by its counterpart from before the refit.
    """
    scored = run.scored_stage(variant, split)
    inputs = {"variant": run.rundir.digest(scored), **(run.as_served() if variant.runtime == "onnxruntime" else {})}

    def work(file: Path) -> PredictionResult:
        return predict(run.open(variant, stage=scored), run.data.splits[split], file)

    output = predictions_file(variant, split)
    run.stage(f"{split}/{variant.id}", inputs, PredictionResult, work, output=output, splits=(split,))


def time_variants(run: RunContext) -> LatencyResult:
    """Time all variants, interleaved, on validation items."""
    config = run.recipe.evaluate
    inputs = {"variants": run.digests(), "evaluate": config, "hardware": hardware(), **run.as_served(), "times": _TIMES}
    by_id = {variant.id: variant for variant in run.variants}

    def work(_: Path) -> LatencyResult:
        total = count_rounds(config.batch_sizes, config.threads, config.latency_samples)
        with run.console.count("rounds", total) as on_round:
            return measure_latency(
                lambda name, threads: run.open(by_id[name], threads),
                list(by_id),
                run.data.splits["validation"].content,
                config.batch_sizes,
                config.threads,
                config.latency_samples,
                run.recipe.seed,
                on_round,
            )

    return run.stage("latency", inputs, LatencyResult, work, splits=("validation",))


def weigh_variants(run: RunContext) -> MemoryResult:
    """Peak memory of each variant in a process of its own."""
    folders = {variant.id: (variant.runtime, run.path / weights_stage(variant)) for variant in run.variants}
    items = run.data.splits["validation"].content[:_MEMORY_ITEMS]
    inputs = {"variants": run.digests(), "hardware": hardware(), **run.as_served()}

    def work(_: Path) -> MemoryResult:
        return measure_memory(folders, items)

    return run.stage("memory", inputs, MemoryResult, work, splits=("validation",))
