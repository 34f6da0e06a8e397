"""What several seeds of one recipe are worth together: means, spread, and intervals over the same test items.

One seed is one draw of start weights, order and augmentation; which of two models is better is often decided by it
(Dodge et al. 2020, arXiv 2002.06305). S seeds, N test items.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from compress.measure.predictions import read_labels, read_scores
from compress.recipe import Student
from compress.report.schema import Report, Variant
from compress.report.write import read_report
from compress.rundir import read_about
from compress.series.gains import Difference, gain, scored
from serve.errors import UserError


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Judged(_Table):
    """The recipe's own metric, in percent, where that is not accuracy."""

    by_seed: tuple[float, ...]
    mean: float
    deviation: float  # of a single seed, n - 1
    against_teacher: Difference | None
    against_control: Difference | None


class Row(_Table):
    """One variant over all seeds."""

    id: str
    role: str
    errors: tuple[int, ...]  # of each seed
    accuracy: tuple[float, ...]  # in percent
    mean: float
    deviation: float  # of a single seed, n - 1
    against_teacher: Difference | None  # None: it is the baseline
    against_control: Difference | None  # None: it is none that was distilled
    judged: Judged | None = None  # None: by accuracy
    accepted: int = 0  # in so many seeds it kept the recipe's limits
    chosen: int = 0  # in so many it was the choice
    speedup: float  # median of the seeds, from bytes to label at batch 1 and 1 thread
    smaller: float  # times, likewise


class Seeds(_Table):
    """seeds.json"""

    recipe: str
    seeds: tuple[int, ...]
    test_items: int
    metric: str = "accuracy"  # the recipe's
    commits: tuple[str | None, ...]
    cpu: str
    rows: tuple[Row, ...]


def gather(folders: Sequence[Path]) -> Seeds:
    """The runs of one recipe with several seeds, on the same test items. Raises UserError where these differ."""
    reports = [read_report(folder) for folder in folders]
    first = reports[0]
    for folder, report in zip(folders[1:], reports[1:], strict=True):
        _check_alike(folders[0], first, folder, report)
    labels = read_labels(folders[0] / "predictions" / f"{first.baseline}.parquet")
    written = read_about(folders[0])["recipe"]["students"]
    students = {student["name"]: Student.model_validate(student) for student in written}
    answers = {
        variant.id: np.array([_predicted(folder, variant.id) for folder in folders]) for variant in first.variants
    }
    return Seeds(
        recipe=first.run.name,
        seeds=tuple(report.run.seed for report in reports),
        test_items=len(labels),
        commits=tuple(report.run.git_commit for report in reports),
        cpu=str(first.run.hardware.get("cpu")),
        metric=first.constraints.metric,
        rows=tuple(_row(variant, reports, answers, labels, students) for variant in first.variants),
    )


def _check_alike(folder: Path, report: Report, other_folder: Path, other: Report) -> None:
    if [variant.id for variant in report.variants] != [variant.id for variant in other.variants]:
        raise UserError(
            f"{folder} and {other_folder} have other variants",
            "take runs of one recipe that differ in the seed alone",
        )
    if report.data.fingerprint != other.data.fingerprint:  # labels alone may be the same, of other items
        raise UserError(
            f"{folder} and {other_folder} have other items, so what they answer cannot be compared item by item",
            "if the data have changed meanwhile, start the same `limbeck repeat` again: it does anew what has other "
            "items now, and draws the same splits for each seed",
        )


def _predicted(folder: Path, variant: str) -> np.ndarray:
    """int64 [N]"""
    predicted: np.ndarray = read_scores(folder / "predictions" / f"{variant}.parquet").argmax(axis=1)
    return predicted


def _row(
    variant: Variant,
    reports: list[Report],
    answers: Mapping[str, np.ndarray],
    labels: np.ndarray,
    students: Mapping[str, Student],
) -> Row:
    """`answers` int64 [S, N] of each variant, `labels` int64 [N]."""
    first = reports[0]
    metric, ours = first.constraints.metric, answers[variant.id]
    same, bases = ([report.variant(name) for report in reports] for name in (variant.id, first.baseline))
    accuracy = _measured("accuracy", variant, first, answers, labels, students)
    return Row(
        id=variant.id,
        role=variant.role,
        errors=tuple(int((seed != labels).sum()) for seed in ours),
        accuracy=accuracy.by_seed,
        mean=accuracy.mean,
        deviation=accuracy.deviation,
        against_teacher=accuracy.against_teacher,
        against_control=accuracy.against_control,
        judged=None if metric == "accuracy" else _measured(metric, variant, first, answers, labels, students),
        accepted=sum(one.verdict == "accepted" for one in same),
        chosen=sum(report.choice.id == variant.id for report in reports),
        speedup=round(statistics.median(one.speedup for one in same), 2),
        smaller=round(statistics.median(b.size_bytes / v.size_bytes for v, b in zip(same, bases, strict=True)), 2),
    )


def _measured(
    metric: str,
    variant: Variant,
    report: Report,
    answers: Mapping[str, np.ndarray],
    labels: np.ndarray,
    students: Mapping[str, Student],
) -> Judged:
    """A metric of one variant, and what it has more of it than its teacher and its control."""
    ours, classes = answers[variant.id], report.data.labels
    base, control = report.baseline, _control(variant, report, students)
    values = scored(metric, ours, labels, classes)

    def against(other: str) -> Difference:
        return gain(metric, ours, answers[other], labels, classes, other)

    return Judged(
        by_seed=tuple(round(value, 3) for value in values),
        mean=round(statistics.mean(values), 3),
        deviation=round(statistics.stdev(values), 3) if len(values) > 1 else 0.0,
        against_teacher=None if variant.id == base else against(base),
        against_control=None if control is None else against(control),
    )


def _control(variant: Variant, report: Report, students: Mapping[str, Student]) -> str | None:
    """What a student is held against, in fp32: its own control, or another's that is just what its own would be."""
    if variant.role != "student":
        return None
    controls = {other.name: other.id for other in report.variants if other.role == "control"}
    own = students[variant.name].untaught(f"{variant.name}-alone")
    if own.name in controls:
        return controls[own.name]
    alike = [found for name, found in controls.items() if students[name] == own.model_copy(update={"name": name})]
    return alike[0] if alike else None
