"""What the folds of a cross-validation say together: each item outside of test is judged once, by models new to it.

F folds, N items in all of them, K classes.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from compress.evidence.choose import limit_problems, margin_problems
from compress.evidence.drops import Drop, exact_problems, judged_drop, margin_p
from compress.evidence.statistics import accuracy_interval
from compress.measure.latency import reference_point
from compress.measure.predictions import read_labels, read_scores
from compress.recipe import Accept
from compress.report.schema import Report
from compress.report.write import read_report
from serve.errors import UserError
from train.metrics import macro_f1

CHOICE = "the choice"  # of each fold its own, made on that fold's validation: what the recipe as a whole is worth


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FoldRow(_Table):
    """One variant over all folds. Points are of the recipe's metric; positive is a loss."""

    id: str
    errors: tuple[int, ...]  # of each fold
    accuracy: float  # of all items, in percent
    accuracy_ci95: tuple[float, float]
    deviation: float  # of a single fold's accuracy, n - 1
    macro_f1: float
    drop_points: float | None  # from the baseline, item by item, or from the recipe's target; None: it is the baseline
    drop_points_ci95: tuple[float, float] | None
    # Why the drop is not shown to be within the recipe's margin, and of the choice, which limit it broke in which fold.
    problems: tuple[str, ...]
    chosen: int  # in so many folds it was the choice


class Folds(_Table):
    """folds.json

    The intervals are over the items. The models of two folds share most of what they learned from, and how much that
    adds cannot be estimated without bias (Bengio & Grandvalet 2004, JMLR 5:1089).
    """

    recipe: str
    folds: int
    items: tuple[int, ...]  # of each fold
    metric: str
    margin_points: float
    target_percent: float | None
    commits: tuple[str | None, ...]
    cpu: str
    rows: tuple[FoldRow, ...]

    @property
    def choice(self) -> FoldRow:
        return next(row for row in self.rows if row.id == CHOICE)


def gather_folds(runs: Sequence[Path], accept: Accept) -> Folds:
    """The runs of one recipe over its folds, in their order. Raises UserError where they made other variants."""
    reports = [read_report(run) for run in runs]
    first = reports[0]
    ids = [variant.id for variant in first.variants]
    for run, report in zip(runs, reports, strict=True):
        if [variant.id for variant in report.variants] != ids:
            raise UserError(
                f"{run} has other variants than {runs[0]}", "delete the folder of the folds, and begin again"
            )
    labels = [read_labels(_predictions(run, first.baseline)) for run in runs]
    scores = {name: [read_scores(_predictions(run, name)) for run in runs] for name in ids}
    chosen = [report.choice.id for report in reports]
    scores[CHOICE] = [scores[name][fold] for fold, name in enumerate(chosen)]
    rows = [_row(name, scores, labels, chosen, first, accept) for name in scores]
    rows[-1] = rows[-1].model_copy(update={"problems": (*rows[-1].problems, *_over_limits(runs, reports, accept))})
    return Folds(
        recipe=first.run.name,
        folds=len(runs),
        items=tuple(len(fold) for fold in labels),
        metric=accept.metric,
        margin_points=accept.max_drop_points,
        target_percent=accept.target_percent,
        commits=tuple(report.run.git_commit for report in reports),
        cpu=str(first.run.hardware.get("cpu")),
        rows=tuple(rows),
    )


def _predictions(run: Path, variant: str) -> Path:
    return run / "predictions" / f"{variant}.parquet"


def _row(
    name: str,
    scores: dict[str, list[np.ndarray]],
    labels: list[np.ndarray],
    chosen: list[str],
    report: Report,
    accept: Accept,
) -> FoldRow:
    """`scores` float32 [n, K] and `labels` int64 [n] of each fold's n items."""
    ours, truth = np.concatenate(scores[name]), np.concatenate(labels)
    right = [scored.argmax(axis=1) == fold for scored, fold in zip(scores[name], labels, strict=True)]
    count = sum(int(fold.sum()) for fold in right)
    low, high = accuracy_interval(count, len(truth))
    drop = None
    if name != report.baseline:
        theirs = np.concatenate(scores[report.baseline])
        drop = judged_drop(accept, ours, theirs, truth, tuple(report.data.labels), report.run.seed)
    return FoldRow(
        id=name,
        errors=tuple(int((~fold).sum()) for fold in right),
        accuracy=round(100 * count / len(truth), 3),
        accuracy_ci95=(round(100 * low, 3), round(100 * high, 3)),
        deviation=round(statistics.stdev(100 * float(fold.mean()) for fold in right), 3),
        macro_f1=round(macro_f1(ours.argmax(axis=1), truth, len(report.data.labels)), 5),
        drop_points=None if drop is None else round(drop.points, 3),
        drop_points_ci95=None if drop is None else (round(drop.low, 3), round(drop.high, 3)),
        problems=() if drop is None else tuple(_problems(accept, drop)),
        chosen=chosen.count(name),
    )


def _problems(accept: Accept, drop: Drop) -> list[str]:
    return [*margin_problems(accept, drop.high), *exact_problems(accept, drop, margin_p(accept, drop))]


def _over_limits(runs: Sequence[Path], reports: Sequence[Report], accept: Accept) -> list[str]:
    """The limits on latency and size that what a fold chose does not keep, as measured in that fold."""
    found = []
    for run, report in zip(runs, reports, strict=True):
        chosen = report.variant(report.choice.id)
        latency = reference_point(chosen.latency_ms, report.constraints.threads)
        found += [f"in {run.name} {problem}" for problem in limit_problems(accept, latency, chosen.size_bytes)]
    return found
