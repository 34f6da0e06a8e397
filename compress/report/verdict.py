"""The top of the page: the verdict, its four key figures, the constraints, and what to say when the choice failed."""

from __future__ import annotations

from dataclasses import dataclass

from compress.report import facts, wording
from compress.report.schema import Report, Variant
from compress.report.tables import Cell, Column, Table, row, table


@dataclass(frozen=True)
class Figure:
    label: str
    value: str
    unit: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    accepted: bool
    sentence: str
    subject: str  # id of the variant whose figures follow
    figures: tuple[Figure, ...]
    failures: tuple[str, ...]  # why the choice failed; empty when it held
    remarks: tuple[str, ...]  # what else a reader of a failed run should know

    @property
    def mark(self) -> str:
        return "Accepted" if self.accepted else "Not accepted"

    @property
    def sign(self) -> str:
        return "✓" if self.accepted else "✕"


def verdict(report: Report) -> Verdict:
    subject = facts.chosen(report)
    accepted = report.selected is not None
    return Verdict(
        accepted=accepted,
        sentence=report.verdict.replace(" %", f"{wording.NBSP}%"),
        subject=subject.id if subject else "",
        figures=_figures(report, subject) if subject else (),
        failures=() if accepted or subject is None else tuple(map(wording.sentence, facts.reasons(report, subject))),
        remarks=() if accepted else tuple(_remarks(report, subject)),
    )


def _figures(report: Report, variant: Variant) -> tuple[Figure, ...]:
    base = facts.baseline(report)
    before, after = facts.median(base), facts.median(variant)
    smaller, size_word = _times(facts.quotient(base.size_bytes, variant.size_bytes), "smaller", "larger")
    faster, speed_word = _times(variant.speedup if before and after else None, "faster", "slower")
    speeds = f"{wording.milliseconds(before)} → {wording.milliseconds(after)}, bytes to label, batch 1, 1 thread"
    if facts.by_the_clock(base, variant) is not None:
        before, after = facts.work(base), facts.work(variant)
        work = f"{wording.milliseconds(before)} → {wording.milliseconds(after)} of processor time"
        speeds = f"{work}; by the clock {speeds}"
    return (
        Figure("Size", smaller, size_word, f"{wording.size(base.size_bytes)} → {wording.size(variant.size_bytes)}"),
        Figure("Speed-up", faster, speed_word, speeds),
        *(_against_teacher(variant) if report.constraints.target_percent is None else _against_target(report, variant)),
    )


def _against_teacher(variant: Variant) -> tuple[Figure, Figure]:
    spread = wording.interval(*variant.accuracy_drop_points_ci95)
    return (
        Figure("Accuracy drop", wording.fixed(variant.accuracy_drop_points), "points", f"95 % interval {spread}"),
        Figure("Flips, lost / gained", _flips(variant), "", f"{_items(variant)}, against the baseline"),
    )


def _against_target(report: Report, variant: Variant) -> tuple[Figure, Figure]:
    """What was judged, and beside it what the target says nothing of."""
    target = report.constraints.target_percent
    assert target is not None
    reached = wording.fixed(target - variant.metric_drop_points)
    low, high = (target - limit for limit in reversed(variant.metric_drop_points_ci95))
    spread = wording.interval(*variant.accuracy_drop_points_ci95)
    return (
        Figure(
            wording.capital(facts.metric_name(report.constraints.metric)),
            reached,
            "%",
            f"target {wording.percentage(target)}; 95 % interval {wording.interval(low, high)}",
        ),
        Figure(
            "Accuracy drop from the teacher",
            wording.fixed(variant.accuracy_drop_points),
            "points",
            f"95 % interval {spread}; lost / gained {_flips(variant)} {_items(variant)}",
        ),
    )


def _flips(variant: Variant) -> str:
    return f"{wording.whole(variant.flips.lost)} / {wording.whole(variant.flips.gained)}"


def _items(variant: Variant) -> str:
    return f"of {wording.plural(variant.n, 'test item')}"


def _times(ratio: float | None, above: str, below: str) -> tuple[str, str]:
    """A ratio as a reader says it: never "0.5× smaller" or "1.0× faster"."""
    if ratio is not None and 0.95 <= ratio < 1.05:
        return "equal", ""
    if ratio is not None and 0 < ratio < 1:
        return wording.ratio(1 / ratio), below
    return wording.ratio(ratio), above


def _remarks(report: Report, subject: Variant | None) -> list[str]:
    found = []
    if subject is None:
        found.append("No variant could be chosen on validation, so there is nothing to select.")
    passed = [variant.id for variant in facts.compared(report) if variant.verdict == "accepted"]
    near = facts.nearest(report)
    if passed:
        found.append(
            f"On the test split these would have met every constraint: {', '.join(passed)}. They were not the choice "
            "made on validation; to take one now would be to pick a winner by the very data that must judge it. To use "
            "one, change the recipe so that it is chosen, and judge it on new test data."
        )
    elif near is not None:
        whose = "The choice is also" if subject and near.id == subject.id else f"{near.id} is"
        misses = " ".join(check.failure for check in facts.failed(facts.checks(report, near)))
        found.append(f"{whose} the variant nearest to the constraints on test. {misses}".strip())
    return found


def constraints_table(report: Report, only_set: bool = False) -> Table | None:
    """The recipe's constraints on the choice, or where there is none on what came nearest; None without either.

    `only_set` leaves out those that the recipe sets no limit for.
    """
    variant = facts.chosen(report) or facts.nearest(report)
    if variant is None:
        return None
    words: dict[bool | None, Cell] = {
        True: Cell(f"✓{wording.NBSP}holds", tone="good"),
        False: Cell(f"✕{wording.NBSP}fails", tone="bad"),
        None: Cell("—", tone="quiet"),
    }
    rows = [
        row(check.name, words[check.holds], Cell(check.measured, check.detail), check.required)
        for check in facts.checks(report, variant)
        if not only_set or check.required != facts.NO_LIMIT
    ]
    columns: list[str | Column] = ["Constraint", Column("Holds", numeric=False), "Measured on test", "Required"]
    return table(f"Constraints on {variant.id}, over {wording.plural(variant.n, 'test item')}", columns, rows)
