"""Two runs side by side: their choices paired item by item, every variant of both, what the recipes differ in.

"First" and "second" are the runs in the order in which they were named; drops are of the second from the first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.evidence.audit import class_changes, flips
from compress.evidence.statistics import drop_interval, mcnemar
from compress.measure.predictions import read_labels, read_scores
from compress.report import classes, facts, wording
from compress.report.reference import reference
from compress.report.render import render_comparison
from compress.report.schema import Report, Variant
from compress.report.tables import Cell, Column, Row, Table, Tone, row, table
from compress.report.write import read_report
from compress.rundir import RUN_JSON, write_text
from serve.errors import UserError

_SURE = 0.05
_CLASSES_SHOWN = 20
_OUTPUTS = ("name", "report", "serving")  # of a recipe: they change no answer


@dataclass(frozen=True)
class Run:
    """A run as far as a comparison needs it."""

    folder: Path
    report: Report

    @classmethod
    def read(cls, folder: Path) -> Run:
        return cls(folder, read_report(folder))

    @property
    def title(self) -> str:
        return wording.short(self.folder.name or self.report.run.name, 40)

    def answers(self, variant: str) -> np.ndarray:
        """Labels int64 [N] that a variant gave on the test split."""
        return read_scores(self.folder / "predictions" / f"{variant}.parquet").argmax(axis=1)

    @property
    def choice(self) -> Variant:
        found = facts.chosen(self.report)
        if found is None:
            raise UserError(f"{self.folder} has no choice to compare", "compare runs that came to an end")
        return found


@dataclass(frozen=True)
class Paired:
    """The second's answers against the first's on the same items."""

    lost: int
    gained: int
    n: int

    @property
    def points(self) -> float:
        return 100 * (self.lost - self.gained) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        low, high = drop_interval(self.lost, self.gained, self.n)
        return 100 * low, 100 * high

    @property
    def p(self) -> float:
        return mcnemar(self.lost, self.gained)


@dataclass(frozen=True)
class Page:
    """All that the template shows; the terminal gets `headline` and `notes`."""

    title: str
    headline: str
    byline: tuple[str, ...]
    notes: list[str]
    choices: Table
    variants: Table | None
    classes: Table
    recipe: Table | None


def write_comparison(first: Path, second: Path, out: Path | None = None) -> tuple[Page, Path]:
    """Write the page of `compare` into `out`, or beside the second run's report, and say where. Raises UserError."""
    one, other = Run.read(first), Run.read(second)
    page = compare(one, other)
    out = out or second / f"compare-with-{first.resolve().name}.html"
    write_text(out, render_comparison(page))
    return page, out


def compare(first: Run, second: Run) -> Page:
    """Raises UserError unless both were judged on the same items of the same classes."""
    _check_alike(first, second)
    labels = _labels(first)
    ours, theirs = second.answers(second.choice.id), first.answers(first.choice.id)
    found = _paired(ours, theirs, labels)
    return Page(
        title=f"{first.title} and {second.title}",
        headline=_headline(first, second, found),
        byline=(
            first.report.data.source,
            wording.plural(len(labels), "test item"),
            f"McNemar p {wording.p_value(found.p)}",
        ),
        notes=_notes(first, second),
        choices=_choices(first, second),
        variants=_variants(first, second, labels),
        classes=_classes(ours, theirs, labels, first.report.data.labels),
        recipe=_recipes(first, second),
    )


def _check_alike(first: Run, second: Run) -> None:
    ours, theirs = second.report.data, first.report.data
    if ours.labels != theirs.labels:
        raise UserError(f"{first.title} and {second.title} know different classes", "compare runs on the same data")
    if ours.splits["test"].fingerprint != theirs.splits["test"].fingerprint:
        raise UserError(
            f"{first.title} and {second.title} were judged on different test items, so nothing can be paired",
            "compare runs on the same data with the same data.seed; `limbeck repeat` says how to vary the rest",
        )


def _labels(run: Run) -> np.ndarray:
    return read_labels(run.folder / "predictions" / f"{run.choice.id}.parquet")


def _paired(ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray) -> Paired:
    counted = flips(ours, theirs, labels)
    return Paired(counted.lost, counted.gained, len(labels))


def _headline(first: Run, second: Run, found: Paired) -> str:
    low, high = found.interval
    span = f"(95 % interval {wording.interval(low, high)}, {wording.plural(found.n, 'test item')})"
    one, other = f"{second.choice.id} of {second.title}", f"{first.choice.id} of {first.title}"
    if low > 0:
        return f"{one} is less accurate than {other} by {wording.points(found.points)} {span}."
    if high < 0:
        low, high = -high, -low
        span = f"(95 % interval {wording.interval(low, high)}, {wording.plural(found.n, 'test item')})"
        return f"{one} is more accurate than {other} by {wording.points(-found.points)} {span}."
    return (
        f"No difference in accuracy is shown between {one} and {other}: the first of these loses "
        f"{wording.fixed(found.lost, 0)} answers and gains {wording.fixed(found.gained, 0)}, a drop of "
        f"{wording.points(found.points)} {span}."
    )


def _notes(first: Run, second: Run) -> list[str]:
    notes = [
        "Items are paired, so the interval is of the difference itself. Latencies are from two runs, not interleaved."
    ]
    machines = [run.report.run.hardware.get("cpu") for run in (first, second)]
    if machines[0] != machines[1]:
        notes.append(f"The runs are from different processors ({machines[0]}; {machines[1]}): compare no latency.")
    if first.report.constraints != second.report.constraints:
        notes.append("The runs were judged by different constraints; each verdict is by its own.")
    return notes


def _choices(first: Run, second: Run) -> Table:
    runs = (first, second)
    columns: list[str | Column] = ["Figure", *(Column(run.title) for run in runs), "Second / first"]
    rows = [
        row("Choice", *(Cell(run.choice.id, run.report.verdict.partition(":")[0]) for run in runs), ""),
        row("Accuracy, %", *(_accuracy(run.choice) for run in runs), ""),
        row(f"{reference(first.report).brief}, own baseline", *(_drop(run.choice) for run in runs), ""),
        _ratio("p50, ms", [facts.median(run.choice) for run in runs], wording.significant),
        _ratio("p95, ms", [facts.tail(run.choice) for run in runs], wording.significant),
        _ratio("Size", [float(run.choice.size_bytes) for run in runs], wording.size),
        _ratio("Parameters", [float(run.choice.params) for run in runs], wording.whole),
        _ratio("Memory", [1e6 * run.choice.peak_rss_mb for run in runs], wording.size),
        _ratio("Calibration error, %", [100 * run.choice.ece for run in runs], wording.fixed),
    ]
    return table("The choices", columns, rows)


def _accuracy(variant: Variant) -> Cell:
    return Cell(wording.percent(variant.accuracy, unit=False), wording.percent_interval(variant.accuracy_ci95))


def _drop(variant: Variant) -> Cell:
    return Cell(wording.fixed(variant.metric_drop_points), wording.interval(*variant.metric_drop_points_ci95))


def _ratio(name: str, values: list[float | None], write: Callable[[float | None], str]) -> Row:
    before, after = values
    times = None if before is None or after is None else facts.quotient(after, before)
    return row(name, write(before), write(after), wording.ratio(times))


def _variants(first: Run, second: Run, labels: np.ndarray) -> Table | None:
    known = {variant.id: variant for variant in first.report.variants}
    rows = [
        _variant_row(known[variant.id], variant, _paired(second.answers(variant.id), first.answers(variant.id), labels))
        for variant in second.report.variants
        if variant.id in known
    ]
    columns: list[str | Column] = [
        "Variant",
        f"{first.title}, %",
        f"{second.title}, %",
        "Flips −/+",
        "Drop, points",
        "McNemar p",
    ]
    caption = "Every variant that both runs have. Drops are of the second from the first, intervals beneath."
    return table(caption, columns, rows) if rows else None


def _variant_row(before: Variant, after: Variant, found: Paired) -> Row:
    low, high = found.interval
    tone: Tone = "bad" if low > 0 else "good" if high < 0 else ""
    return row(
        after.id,
        wording.percent(before.accuracy, unit=False),
        wording.percent(after.accuracy, unit=False),
        f"{wording.whole(found.lost)} / {wording.whole(found.gained)}",
        Cell(wording.fixed(found.points), wording.interval(low, high), tone),
        wording.p_value(found.p),
    )


def _classes(ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray, names: list[str]) -> Table:
    changes = sorted(class_changes(ours, theirs, labels, names), key=lambda change: -abs(change.drop_points))
    rows = [
        row(
            classes.label(change.label),
            wording.whole(change.n),
            f"{wording.whole(change.lost)} / {wording.whole(change.gained)}",
            Cell(wording.fixed(change.drop_points), wording.interval(*change.drop_points_ci95)),
            Cell(wording.p_value(change.p), tone="bad" if change.p < _SURE else ""),
        )
        for change in changes[:_CLASSES_SHOWN]
    ]
    caption = "The choices class by class, the greatest change first; intervals and p hold for all classes together"
    return table(caption, ["Class", "Test items", "Flips −/+", "Drop of recall, points", "p"], rows)


def _recipes(first: Run, second: Run) -> Table | None:
    """What differs between the resolved recipes; None where nothing does, or one is not known."""
    before, after = _recipe(first.folder), _recipe(second.folder)
    rows = [
        row(key, *(json.dumps(side.get(key), ensure_ascii=False) if key in side else "—" for side in (before, after)))
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]
    columns: list[str | Column] = ["Field", Column(first.title, numeric=False), Column(second.title, numeric=False)]
    return table("What the recipes differ in", columns, rows) if rows else None


def _recipe(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / RUN_JSON).read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError):
        return {}
    return {key: value for key, value in _flat(content) if key.split(".")[0] not in _OUTPUTS}


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`teacher.fit.epochs`, 3: a model in a list goes by its name."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(content, list) and content and isinstance(content[0], dict):
        for at, value in enumerate(content):
            yield from _flat(value, f"{prefix}.{value.get('name', at)}")
    else:
        yield prefix, content
