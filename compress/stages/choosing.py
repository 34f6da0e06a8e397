"""The stage that chooses, and the evidence that the verdicts come from."""

from __future__ import annotations

from pathlib import Path

from compress.evidence.abstain import promise_problems
from compress.evidence.assemble import Evidence
from compress.evidence.choose import Measured, Refitted, choose
from compress.measure.latency import LatencyResult, reference_point
from compress.measure.memory import MemoryResult
from compress.packaging import PackageResult, is_batch_invariant
from compress.report.schema import Choice
from compress.stages.context import RunContext
from compress.variants import Variant, baseline
from train.classifier import WEIGHTS
from train.fit_result import FitResult
from train.torch_runner import TorchRunner


def choose_variant(
    run: RunContext,
    packages: dict[str, PackageResult],
    before: dict[str, PackageResult],
    latency: LatencyResult,
    frozen: Choice | None = None,
) -> Choice:
    """Rank the candidates on validation and freeze the choice. Controls are no candidates.

    A choice that was made and `frozen` elsewhere, by a search on the same validation split, stays as it is.

    `before` are the packages from before a refit, which validation was scored with; size and latency are of those that
    ship.
    """
    accept, test_size = run.recipe.accept, len(run.data.judged)
    inputs = {
        "accept": accept,
        "predictions": {variant.id: run.rundir.digest(f"validation/{variant.id}") for variant in run.variants},
        "latency": latency,
        "test_size": test_size,
        **run.as_served(),
    }
    candidates = [variant for variant in run.packaged if variant.role != "control"]
    refits = {
        variant.id: Refitted(before[variant.id].parity, packages[variant.id].parity)
        for variant in candidates
        if variant.id in before
    }
    if refits:
        inputs["refits"] = {name: [refit.before, refit.after] for name, refit in refits.items()}
    promises = {variant.id: packages[variant.id].abstention for variant in candidates}
    if run.recipe.abstain is not None:
        inputs["promises"] = promises
    if frozen is not None:
        inputs["frozen"] = frozen

    def measured(variant: Variant) -> Measured:
        return Measured(
            variant,
            run.scores(variant, "validation"),
            reference_point(latency.variants[variant.id], run.threads),
            packages[variant.id].size_bytes,
            refits.get(variant.id),
            tuple(promise_problems(promises[variant.id])),
        )

    def work(_: Path) -> Choice:
        seen = run.rundir.has(f"test/{run.variants[0].id}")  # the baseline
        choice = frozen or choose(
            accept,
            [measured(variant) for variant in candidates],
            run.scores(baseline(), "validation"),
            run.data.splits["validation"].labels,
            run.data.classes,
            test_size,
            run.recipe.seed,
        )
        return choice.model_copy(update={"after_test": seen})

    return run.stage("choice", inputs, Choice, work, splits=("validation",))


def gather_evidence(
    run: RunContext,
    fits: dict[str, FitResult],
    packages: dict[str, PackageResult],
    latency: LatencyResult,
    memory: MemoryResult,
) -> list[Evidence]:
    """Everything measured about each variant, the baseline first."""
    return [
        Evidence(
            plan=variant,
            fit=fits[variant.model],
            package=packages.get(variant.id),
            provider="CPUExecutionProvider" if variant.id in packages else TorchRunner.provider,
            size_bytes=packages[variant.id].size_bytes if variant.id in packages else _weights_bytes(run, variant),
            batch_invariant=packages[variant.id].batch_invariant
            if variant.id in packages
            else _is_steady(run, variant),
            latency=latency.variants[variant.id],
            peak_rss_mb=memory.peak_rss_mb[variant.id],
            scores=run.scores(variant, "test"),
        )
        for variant in run.variants
    ]


def _weights_bytes(run: RunContext, variant: Variant) -> int:
    return (run.path / variant.model_folder / WEIGHTS).stat().st_size


def _is_steady(run: RunContext, variant: Variant) -> bool:
    """Whether a teacher in torch answers the same whatever shares the batch."""
    runner = TorchRunner(run.classifier(variant.model_folder))
    return is_batch_invariant(runner, run.data.splits["validation"].content)
