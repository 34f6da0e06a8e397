"""The path from the baseline to the choice as a waterfall: what each step cost in accuracy and gained in speed, size.

A row is a step, a panel is a figure. Latency and size begin at zero, so that lengths can be compared; accuracies lie
too close together for that and are drawn about themselves, as points with their intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from compress.report import facts, svg, wording
from compress.report.schema import Report, Variant
from compress.report.svg import Entry, Scale

_PITCH, _BAR = 46.0, 12.0  # from row to row, and the height of a bar
_NAMES = 168.0  # left of the panels, on a wide page


@dataclass(frozen=True)
class Step:
    """A variant on the path and what made it of the one before."""

    variant: Variant
    done: str


@dataclass(frozen=True)
class Panel:
    """One figure of every step; `less_is_better` but for accuracy."""

    title: str
    values: list[float]
    labels: list[str]
    less_is_better: bool = True
    intervals: list[tuple[float, float]] | None = None

    @property
    def drawable(self) -> bool:
        ends = [end for span in self.intervals or () for end in span]
        return all(math.isfinite(value) for value in [*self.values, *ends])


def path(report: Report) -> list[Step]:
    """From the baseline to the choice along what each was made from; fewer than two steps where there is no choice."""
    choice, by_id = facts.chosen(report), {variant.id: variant for variant in report.variants}
    lineage: list[Variant] = []
    while choice is not None and choice not in lineage:
        lineage.append(choice)
        choice = next((by_id[parent] for parent in choice.parents if parent in by_id), None)
    if not lineage or lineage[-1].id != report.baseline:
        lineage.append(facts.baseline(report))
    lineage.reverse()
    return [Step(one, _done(before, one)) for before, one in zip([None, *lineage], lineage, strict=False)]


def _done(before: Variant | None, one: Variant) -> str:
    if before is None:
        return "as users run it"
    if one.name != before.name:
        return f"distilled, exported as {one.precision}" if one.role == "student" else f"exported as {one.precision}"
    if before.runtime == "torch":
        return f"exported as {one.precision}"
    return f"quantized to {one.precision}" if one.precision.startswith("int") else f"cast to {one.precision}"


def waterfall(report: Report, width: float = svg.WIDE) -> Markup | None:
    """The drawing; None where there is no choice, or it is the baseline itself."""
    steps = path(report)
    panels = [panel for panel in (_accuracy(steps), _latency(steps), _size(steps)) if panel and panel.drawable]
    if len(steps) < 2 or not panels:
        return None
    parts, bottom = _wide(steps, panels, width) if width >= svg.WIDE else _narrow(steps, panels, width)
    better = [
        Entry("better", "better than the step before"),
        Entry("worse", "worse"),
        Entry("whisker", "95 % interval"),
    ]
    legend, height = svg.legend(better, 8, bottom + 6, width - 8)
    told = (
        f"{step.variant.id}, {step.done}: " + ", ".join(panel.labels[at] for panel in panels)
        for at, step in enumerate(steps)
    )
    return svg.drawing(
        f"waterfall-{width:g}", "From the baseline to the choice", ". ".join(told), (width, height), [*parts, *legend]
    )


def _wide(steps: Sequence[Step], panels: Sequence[Panel], width: float) -> tuple[list[Markup], float]:
    parts, top = [], 34.0
    for at, step in enumerate(steps):
        parts += _names(step, 8, top + at * _PITCH + 14)
    across = (width - _NAMES) / len(panels)
    for at, panel in enumerate(panels):
        left = _NAMES + at * across
        parts += _panel(panel, left + 10, left + across - 18, top)
    return parts, top + len(steps) * _PITCH


def _narrow(steps: Sequence[Step], panels: Sequence[Panel], width: float) -> tuple[list[Markup], float]:
    """One panel beneath the other, each step's name above its bar."""
    parts, top = [], 34.0
    for panel in panels:
        parts += _panel(panel, 10, width - 12, top, steps)
        top += len(steps) * (_PITCH + 16) + 42
    return parts, top - 34


def _names(step: Step, x: float, y: float) -> list[Markup]:
    return [
        svg.text(x, y, wording.short(step.variant.id, 26), class_="name"),
        svg.text(x, y + 15, wording.short(step.done, 30)),
    ]


def _panel(panel: Panel, left: float, right: float, top: float, named: Sequence[Step] = ()) -> list[Markup]:
    """A title and a bar a row, from the value before to the value after; `named` rows have their names above them."""
    x, parts = _scale(panel, left, right), [svg.text(left, top - 22, panel.title, class_="axis")]
    pitch, sink = (_PITCH + 16, 16.0) if named else (_PITCH, 0.0)
    for at, value in enumerate(panel.values):
        y = top + at * pitch + sink
        if named:
            parts.append(svg.text(left, y - 4, wording.short(f"{named[at].variant.id}, {named[at].done}", 52)))
        parts += _bar(panel, x, at, y)
        parts.append(_label(x, panel, at, y + _BAR + 15))
        if at + 1 < len(panel.values):
            parts.append(svg.line(x(value), y, x(value), y + pitch + _BAR, "grid"))
    return parts


def _scale(panel: Panel, left: float, right: float) -> Scale:
    if panel.intervals is None:
        return Scale(0.0, max(panel.values), left, right)
    low, high = min(low for low, _ in panel.intervals), max(high for _, high in panel.intervals)
    return Scale(low, high, left, right)


def _bar(panel: Panel, x: Scale, at: int, y: float) -> list[Markup]:
    value, whole = panel.values[at], at == 0 or at == len(panel.values) - 1
    parts = []
    if panel.intervals is None and whole:
        parts.append(_box(x(0), x(value), y, "bar whole"))
    if at:
        before = panel.values[at - 1]
        better = (value < before) == panel.less_is_better
        parts.append(_box(x(value), x(before), y, "bar better" if better else "bar worse"))
    if panel.intervals is not None:
        low, high = panel.intervals[at]
        middle = y + _BAR / 2
        parts += [svg.line(x(low), middle, x(high), middle, "stem"), svg.marker("student", x(value), middle, "plain")]
    return parts


def _box(one: float, other: float, y: float, class_: str) -> Markup:
    return svg.tag("rect", x=min(one, other), y=y, width=max(abs(other - one), 1.0), height=_BAR, class_=class_)


def _label(x: Scale, panel: Panel, at: int, y: float) -> Markup:
    """The figure under its bar's end, kept inside the panel."""
    words = panel.labels[at]
    half = svg.text_width(words) / 2
    middle = min(max(x(panel.values[at]), x.start + half), x.end - half)
    return svg.text(middle, y, words, "middle", "name")


def _accuracy(steps: Sequence[Step]) -> Panel:
    values = [100 * step.variant.accuracy for step in steps]
    changes = ["", *(f" ({wording.signed(new - old)})" for old, new in pairwise(values))]
    labels = [f"{wording.fixed(value)}{wording.NBSP}%{change}" for value, change in zip(values, changes, strict=True)]
    spans = [(100 * low, 100 * high) for low, high in (step.variant.accuracy_ci95 for step in steps)]
    return Panel("Accuracy on test", values, labels, less_is_better=False, intervals=spans)


def _latency(steps: Sequence[Step]) -> Panel | None:
    values = [facts.median(step.variant) for step in steps]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return Panel("Median latency, bytes to label", known, _shrunk(known, wording.milliseconds))


def _size(steps: Sequence[Step]) -> Panel:
    values = [float(step.variant.size_bytes) for step in steps]
    return Panel("Size", values, _shrunk(values, wording.size))


def _shrunk(values: Sequence[float], write: Callable[[float], str]) -> list[str]:
    """Each value, and how many times less than the one before it is."""
    factors = [facts.quotient(old, new) for old, new in pairwise(values)]
    said = ["", *("" if factor is None else f" ({_times(factor)})" for factor in factors)]
    return [f"{write(value)}{words}" for value, words in zip(values, said, strict=True)]


def _times(factor: float) -> str:
    """`6.2× less`, `1.1× more`, and for what would be written as `1.0×`, `about as before`."""
    if 0.95 < factor < 1.05:
        return "about as before"
    return f"{wording.ratio(factor)} less" if factor > 1 else f"{wording.ratio(1 / factor)} more"
