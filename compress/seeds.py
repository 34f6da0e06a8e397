"""What several seeds of one recipe are worth together: means, spread, and intervals over the same test items.

One seed is one draw of start weights, order and augmentation; which of two models is better is often decided by it
(Dodge et al. 2020, arXiv 2002.06305). S seeds, N test items.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.stats import norm

from compress.evidence.drops import perfect_limit_points
from compress.evidence.statistics import CONFIDENCE
from compress.measure.predictions import read_labels, read_scores
from compress.report.schema import Report, Variant
from compress.report.write import read_report
from compress.rundir import read_about
from serve.errors import UserError

_Z = float(norm.ppf(0.5 + CONFIDENCE / 2))


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Difference(_Table):
    """How much more of the test items one model has right than another, in points, mean of the seeds.

    `ci95` is over the test items, each with its mean over these very seeds; `by_seed` shows what seeds do to it.
    """

    than: str
    points: float
    ci95: tuple[float, float]
    by_seed: tuple[float, ...]


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
    speedup: float  # median of the seeds, from bytes to label at batch 1 and 1 thread
    smaller: float  # times, likewise


class Seeds(_Table):
    """seeds.json"""

    recipe: str
    seeds: tuple[int, ...]
    test_items: int
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
    students = {student["name"]: student for student in read_about(folders[0])["recipe"]["students"]}
    right = {
        variant.id: np.array([_right(folder, variant.id, labels) for folder in folders]) for variant in first.variants
    }
    return Seeds(
        recipe=first.run.name,
        seeds=tuple(report.run.seed for report in reports),
        test_items=len(labels),
        commits=tuple(report.run.git_commit for report in reports),
        cpu=str(first.run.hardware.get("cpu")),
        rows=tuple(_row(variant, reports, right, students) for variant in first.variants),
    )


def difference(ours: np.ndarray, theirs: np.ndarray, than: str) -> Difference:
    """What `ours` has right more than `theirs`: both bool [S, N].

    Where hardly an item differs the deviation says nothing; no interval is narrower than that of one seed without any.
    """
    gain = ours.astype(float) - theirs
    items = gain.mean(axis=0)
    half = _Z * float(items.std(ddof=1)) / len(items) ** 0.5
    points, half = 100 * float(items.mean()), max(100 * half, perfect_limit_points(len(items)))
    return Difference(
        than=than,
        points=round(points, 3),
        ci95=(round(max(points - half, -100), 3), round(min(points + half, 100), 3)),
        by_seed=tuple(round(100 * float(seed.mean()), 3) for seed in gain),
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


def _right(folder: Path, variant: str, labels: np.ndarray) -> np.ndarray:
    """bool [N]"""
    right: np.ndarray = read_scores(folder / "predictions" / f"{variant}.parquet").argmax(axis=1) == labels
    return right


def _row(
    variant: Variant,
    reports: list[Report],
    right: Mapping[str, np.ndarray],
    students: Mapping[str, Mapping[str, Any]],
) -> Row:
    base = reports[0].baseline
    control = _control(variant, reports[0], students)
    accuracy = [100 * float(seed.mean()) for seed in right[variant.id]]
    same = [next(other for other in report.variants if other.id == variant.id) for report in reports]
    bases = [next(other for other in report.variants if other.id == base) for report in reports]
    return Row(
        id=variant.id,
        role=variant.role,
        errors=tuple(int((~seed).sum()) for seed in right[variant.id]),
        accuracy=tuple(round(value, 3) for value in accuracy),
        mean=round(statistics.mean(accuracy), 3),
        deviation=round(statistics.stdev(accuracy), 3) if len(accuracy) > 1 else 0.0,
        against_teacher=None if variant.id == base else difference(right[variant.id], right[base], base),
        against_control=None if control is None else difference(right[variant.id], right[control], control),
        speedup=round(statistics.median(one.speedup for one in same), 2),
        smaller=round(statistics.median(b.size_bytes / v.size_bytes for v, b in zip(same, bases, strict=True)), 2),
    )


def _control(variant: Variant, report: Report, students: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What a student is held against, in fp32: its own control, or another's that is the same network."""
    if variant.role != "student":
        return None
    controls = [other for other in report.variants if other.role == "control"]
    own = next((other for other in controls if other.name == f"{variant.name}-alone"), None)
    if own is not None:
        return own.id
    alike = [other.id for other in controls if _network(students[other.name]) == _network(students[variant.name])]
    return alike[0] if len(alike) == 1 else None


def _network(student: Mapping[str, Any]) -> tuple[Any, Any]:
    return student["model"], student["options"]
