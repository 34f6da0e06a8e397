"""Accuracy against what it costs: milliseconds, bytes and, where load was measured, requests a second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from markupsafe import Markup

from compress.report import facts, svg, wording
from compress.report.loads import Load
from compress.report.pareto import Point, Words, pareto
from compress.report.schema import Report, Variant

_SIZE = Words(
    ident="pareto-size",
    title="Accuracy against size",
    across="Size of the package, MB",
    front="the smallest first",
)


def by_latency(report: Report, width: float = svg.WIDE) -> Markup | None:
    """Accuracy over the median latency at batch 1 and 1 thread."""
    return pareto(_points(report, facts.median), width)


def by_size(report: Report, width: float = svg.WIDE) -> Markup | None:
    """Accuracy over the bytes that decide an answer."""
    return pareto(_points(report, lambda variant: variant.size_bytes / 1e6), width, _SIZE)


def by_rate(report: Report, loads: Sequence[Load], width: float = svg.WIDE) -> Markup | None:
    """Accuracy over the requests a second under the objective that most of `loads` share; None below two of them.

    Drawn by the time that a request takes of the machine, so that left is better here too.
    """
    objective = shared_objective(loads)
    rates = {load.variant: load.rate for load in loads if load.objective == objective and load.rate}
    words = Words(
        ident="pareto-rate",
        title=f"Accuracy against requests a second that keep {objective}",
        across="Requests a second; more to the left",
        front="the most requests first",
        tick=lambda ms: f"{1000 / ms:g}",
    )
    if len(rates) < 2:
        return None
    return pareto(
        _points(report, lambda variant: 1000 / rates[variant.id] if variant.id in rates else None), width, words
    )


def shared_objective(loads: Sequence[Load]) -> str:
    """What most of the load tests had to keep; empty without any."""
    return Counter(load.objective for load in loads).most_common(1)[0][0] if loads else ""


def _points(report: Report, cost: Callable[[Variant], float | None]) -> list[Point]:
    found = [(variant, cost(variant)) for variant in report.variants]
    return [_point(report, variant, at) for variant, at in found if at is not None]


def _point(report: Report, variant: Variant, at: float) -> Point:
    low, high = (100 * end for end in variant.accuracy_ci95)
    marks = tuple(facts.marks(report, variant))
    return Point(variant.id, at, 100 * variant.accuracy, low, high, variant.role, marks, _told(report, variant))


def _told(report: Report, variant: Variant) -> tuple[str, ...]:
    """What a hover shows: the figures that the tables hold, in a few lines."""
    low, high = (100 * end for end in variant.accuracy_ci95)
    lines = [f"accuracy {wording.percent(variant.accuracy)} ({wording.interval(low, high)})"]
    if variant.id != report.baseline:
        drop = wording.interval(*variant.accuracy_drop_points_ci95)
        lines.append(f"drop {wording.points(variant.accuracy_drop_points)} ({drop})")
        lines.append(f"flips {wording.whole(variant.flips.lost)} lost, {wording.whole(variant.flips.gained)} gained")
    if facts.single(variant) is not None:
        tail = wording.milliseconds(facts.tail(variant))
        lines.append(f"p50 {wording.milliseconds(facts.median(variant))}, p95 {tail}, {_faster(variant)}")
    lines.append(f"{wording.size(variant.size_bytes)}, {wording.whole(variant.params)} parameters")
    return (*lines, "baseline" if variant.id == report.baseline else variant.verdict)


def _faster(variant: Variant) -> str:
    return f"{wording.ratio(variant.speedup)} as fast"
