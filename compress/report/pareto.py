"""The chart of accuracy against latency: what each variant costs and is worth, and which are beaten by none.

Drawn for a width of its own (a wide one for desks and paper, a narrow one for telephones), so that type is never
scaled down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from compress.report import svg, wording
from compress.report.labels import Box, Label, place
from compress.report.svg import Entry, Scale

_TITLE_LENGTH = 30
_FLOOR = 12.0  # points below the best, where the chart stops: one collapsed variant must not flatten the others


@dataclass(frozen=True)
class Words:
    """What a chart says of its axes."""

    ident: str = "pareto"
    title: str = "Accuracy against latency"
    across: str = "Median latency from bytes to label, ms"
    upwards: str = "Accuracy on test, %"
    front: str = "the fastest first"
    tick: Callable[[float], str] = "{:g}".format  # what is written beneath a tick across


@dataclass(frozen=True)
class Point:
    """A variant: median milliseconds from bytes to label; accuracy and the ends of its interval in percent.

    A chart with other words has something else across, of which less is better too.
    """

    name: str
    latency_ms: float
    accuracy: float
    low: float
    high: float
    role: str
    marks: tuple[str, ...] = ()
    told: tuple[str, ...] = ()  # what is shown beneath its name while it is hovered over

    @property
    def drawable(self) -> bool:
        figures = (self.latency_ms, self.accuracy, self.low, self.high)
        return all(math.isfinite(figure) for figure in figures) and self.latency_ms > 0


def titled(name: str, marks: Iterable[str], length: int) -> str:
    """What a chart calls a variant: its name in at most `length` letters, and what it is singled out as."""
    marked = ", ".join(marks)
    return f"{wording.short(name, length)} ({marked})" if marked else wording.short(name, length)


def role_signs(roles: Iterable[str]) -> list[Entry]:
    """A chart's legend begins with the signs of the roles that it shows."""
    shown = set(roles)
    return [Entry(role, role) for role in ("teacher", "student", "control") if role in shown]


def front(points: Iterable[Point]) -> list[Point]:
    """The points that no other beats in both, the fastest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.latency_ms, -point.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def pareto(points: Sequence[Point], width: float = svg.WIDE, words: Words | None = None) -> Markup | None:
    """Accuracy over latency, the front as steps, each accuracy's interval as a whisker; None without a point."""
    shown = [point for point in points if point.drawable]
    if not shown:
        return None
    words = words or Words()
    height = 400.0 if width >= svg.WIDE else 330.0
    x, y, x_ticks = _scales(shown, width, height)
    names, numbered = _names(shown, x, y)
    legend, bottom = svg.legend(_signs(shown, y.low), 8, height + 8, width - 8)
    names_below, bottom = svg.legend(numbered, 8, bottom, width - 8, aligned=True)
    parts = [
        *_axes(x, y, x_ticks, words),
        svg.path(_corners(shown, x, y), "front"),
        *[svg.group(_whisker(point, x, y), "whisker") for point in shown],
        *[svg.marker(point.role, x(point.latency_ms), y(point.accuracy)) for point in shown],
        *[svg.ring(x(point.latency_ms), y(point.accuracy)) for point in shown if "selected" in point.marks],
        *[part for label in names for part in _name(label)],
        *legend,
        *names_below,
        *[_tip(point, x, y, width) for point in shown if point.told],
    ]
    fastest_first = ", ".join(point.name for point in front(shown))
    description = f"{len(shown)} variants. The front, {words.front}: {fastest_first}."
    told = any(point.told for point in shown)
    return svg.drawing(f"{words.ident}-{width:g}", words.title, description, (width, bottom), parts, told)


def _tip(point: Point, x: Scale, y: Scale, width: float) -> Markup:
    head = titled(point.name, point.marks, 44)
    return svg.tip(x(point.latency_ms), y(point.accuracy), [head, *point.told], width)


def _scales(shown: list[Point], width: float, height: float) -> tuple[Scale, Scale, list[float]]:
    latencies = [point.latency_ms for point in shown]
    ticks = svg.log_ticks(min(latencies), max(latencies))
    ceiling = max(point.high for point in shown)
    floor = max(min(point.low for point in shown), max(point.accuracy for point in shown) - _FLOOR)
    room = 0.06 * (ceiling - floor) or 0.5
    x = Scale(ticks[0], ticks[-1], 50, width - 12, log=True)
    return x, Scale(floor - room, ceiling + room, height - 48, 26), ticks


def _axes(x: Scale, y: Scale, x_ticks: list[float], words: Words) -> list[Markup]:
    parts = [svg.text(8, 12, words.upwards, class_="axis")]
    parts.append(svg.text(x.end, y.start + 40, words.across, "end", "axis"))
    y_ticks = svg.linear_ticks(y.low, y.high, 6)
    digits = 0 if len(y_ticks) < 2 or y_ticks[1] - y_ticks[0] >= 1 else 1 if y_ticks[1] - y_ticks[0] >= 0.1 else 2
    for tick in y_ticks:
        parts.append(svg.line(x.start, y(tick), x.end, y(tick), "grid"))
        parts.append(svg.text(x.start - 8, y(tick) + 4, wording.fixed(tick, digits), "end"))
    for tick in x_ticks:
        parts.append(svg.line(x(tick), y.start, x(tick), y.start + 5, "tick"))
        parts.append(svg.text(x(tick), y.start + 20, words.tick(tick), "middle"))
    parts.append(svg.line(x.start, y.start, x.end, y.start, "base"))
    return parts


def _corners(shown: list[Point], x: Scale, y: Scale) -> list[tuple[float, float]]:
    """Steps: between two points of the front, only the accuracy of the faster one is to be had."""
    corners: list[tuple[float, float]] = []
    for point in front(shown):
        if corners:
            corners.append((x(point.latency_ms), corners[-1][1]))
        corners.append((x(point.latency_ms), y(point.accuracy)))
    return [*corners, (x.end, corners[-1][1])]


def _whisker(point: Point, x: Scale, y: Scale) -> list[Markup]:
    at, top, bottom = x(point.latency_ms), y(point.high), y(point.low)
    return [
        svg.line(at, top, at, bottom, "stem"),
        svg.line(at - 3, top, at + 3, top, "stem"),
        svg.line(at - 3, bottom, at + 3, bottom, "stem"),
    ]


def _names(shown: list[Point], x: Scale, y: Scale) -> tuple[list[Label], list[Entry]]:
    """A label for each point: names where all of them find a place, else numbers with the names in the legend."""
    ordered = sorted(shown, key=lambda point: not point.marks)  # those singled out take the best places
    anchors = [(x(point.latency_ms), y(point.accuracy)) for point in ordered]
    marks, lines, whiskers = _taken(ordered, x, y)
    bounds = Box(x.start, y.end - 10, x.end + 8, y.start)
    titles = [_title(point, y.low) for point in ordered]
    for taken in ([*marks, *lines, *whiskers], [*marks, *lines]):  # a name may cross a whisker if it must
        named = place(titles, anchors, taken, bounds)
        if len(named) == len(ordered):
            return named, []
    numbers = [str(1 + shown.index(point)) for point in ordered]
    entries = [Entry(str(at), _title(point, y.low)) for at, point in enumerate(shown, start=1)]
    return place(numbers, anchors, [*marks, *lines, *whiskers], bounds), entries


def _taken(shown: list[Point], x: Scale, y: Scale) -> tuple[list[Box], list[Box], list[Box]]:
    """Where a label would cover a marker, the front, a whisker."""
    marks, whiskers = [], []
    for point in shown:
        across, down, reach = x(point.latency_ms), y(point.accuracy), 11 if "selected" in point.marks else 7
        marks.append(Box(across - reach, down - reach, across + reach, down + reach))
        whiskers.append(Box(across - 3, y(point.high), across + 3, y(point.low)))
    lines = [Box(a[0], min(a[1], b[1]) - 2, b[0], max(a[1], b[1]) + 2) for a, b in pairwise(_corners(shown, x, y))]
    return marks, lines, whiskers


def _title(point: Point, floor: float) -> str:
    below = f" ↓ {wording.fixed(point.accuracy, 1)} %" if point.accuracy < floor else ""
    return titled(point.name, point.marks, _TITLE_LENGTH) + below


def _name(label: Label) -> list[Markup]:
    words = svg.text(label.box.left, label.baseline, label.text, class_="name")
    return [svg.line(*label.leader, "leader"), words] if label.leader else [words]


def _signs(shown: list[Point], floor: float) -> list[Entry]:
    signs = role_signs(point.role for point in shown)
    if any("selected" in point.marks for point in shown):
        signs.append(Entry("ring", "selected"))
    if any(point.accuracy < floor for point in shown):
        signs.append(Entry("↓", "below the chart"))
    return [*signs, Entry("front", "beaten by none"), Entry("whisker", "95 % interval")]
