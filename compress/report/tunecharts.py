"""The charts of a search: its history, the importance of fields, and all trials in parallel coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from compress.report import svg, wording
from compress.report.svg import Entry, Scale

_NAME_LENGTH = 34
_LINES, _LINE, _GAP = 3, 13.0, 6.0  # for the words below an axis: lines, their height, the room between two


@dataclass(frozen=True)
class Axis:
    """One field in parallel coordinates: numbers between `low` and `high`, or the words of a choice."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    words: tuple[str, ...] = ()

    def place(self, value: Any, x0: float, x1: float) -> float:
        if self.words:
            return Scale(0, max(len(self.words) - 1, 1), x0, x1)(self.words.index(str(value)))
        return Scale(self.low, self.high, x0, x1, self.log)(float(value))

    @property
    def ticks(self) -> list[tuple[Any, str]]:
        if self.words:
            return [(word, wording.short(word, 14)) for word in self.words]
        return [(end, f"{end:.4g}".replace("-", "\N{MINUS SIGN}")) for end in (self.low, self.high)]


def history(
    values: Sequence[tuple[int, float]], pruned: Sequence[tuple[int, float]], metric: str, width: float
) -> Markup | None:
    """`values` of complete trials, (number, 0..1), the last step of the pruned ones, and the best so far."""
    if not values:
        return None
    shown = [*values, *pruned]
    left, right, top, bottom = 52.0, width - 14, 30.0, 230.0
    low, high = min(value for _, value in shown), max(value for _, value in shown)
    room = 0.08 * (high - low) or 0.01
    x = Scale(min(at for at, _ in shown), max(at for at, _ in shown), left + 10, right - 10)
    y = Scale(low - room, min(high + room, 1.0) if high < 1 else 1.0, bottom, top)
    parts = [svg.text(8, 14, wording.capital(metric), class_="axis")]
    for tick in svg.linear_ticks(y.low, y.high, 5):
        parts += [svg.line(left, y(tick), right, y(tick), "grid"), svg.text(left - 8, y(tick) + 4, f"{tick:g}", "end")]
    numbers = sorted({round(tick) for tick in svg.linear_ticks(x.low, x.high, int((right - left) / 60))})
    parts += [svg.text(x(tick), bottom + 18, str(tick), "middle") for tick in numbers]
    parts.append(svg.text(right, bottom + 36, "trial", "end", "axis"))
    parts += [svg.line(left, bottom, right, bottom, "base"), svg.path(_best_so_far(values, x, y), "front")]
    parts += [svg.marker("student", x(at), y(value), "open") for at, value in pruned]
    parts += [svg.marker("student", x(at), y(value)) for at, value in values]
    signs = [Entry("student", "complete"), Entry("front", "best so far")]
    if pruned:
        signs.insert(1, Entry("open", "pruned: accuracy where it ended"))
    legend, height = svg.legend(signs, 8, bottom + 44, width - 8)
    best = max(value for _, value in values)
    told = f"{len(values)} complete trials, {len(pruned)} pruned; the best {metric} is {best:.4f}."
    return svg.drawing(f"history-{width:g}", "History of the search", told, (width, height), [*parts, *legend])


def _best_so_far(values: Sequence[tuple[int, float]], x: Scale, y: Scale) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    best = float("-inf")
    for at, value in values:
        if value > best:
            points += [(x(at), y(best))] * bool(points) + [(x(at), y(value))]
            best = value
    return [*points, (x(x.high), y(best))]


def importance(shares: Mapping[str, float], width: float) -> Markup | None:
    """A bar for each field, with its share of all."""
    if not shares:
        return None
    names = {name: wording.short(name, _NAME_LENGTH) for name in shares}
    wide = width >= svg.WIDE
    left = 20 + max(svg.text_width(name) for name in names.values()) if wide else 8.0
    x = Scale(0, max(*shares.values(), 1e-9), left, width - 60)
    pitch, parts = (28.0 if wide else 44.0), []
    for at, (name, share) in enumerate(shares.items()):
        y = 8 + pitch * at + (0 if wide else 16)
        parts.append(svg.text(8, y + (13 if wide else -5), names[name], class_="name"))
        parts.append(svg.tag("rect", x=left, y=y, width=max(x(share) - left, 1.0), height=18.0, class_="bar"))
        parts.append(svg.text(x(share) + 8, y + 13, wording.percent(share, 0)))
    told = " ".join(f"{name}: {wording.percent(share, 0)}." for name, share in shares.items())
    size = (width, 12 + pitch * len(shares))
    return svg.drawing(f"importance-{width:g}", "Importance of the fields", told, size, parts)


def coordinates(
    axes: Sequence[Axis], rows: Sequence[tuple[Mapping[str, Any], float]], metric: str, width: float
) -> Markup | None:
    """A line for each complete trial, (values, 0..1), from axis to axis downwards; the last axis is the metric."""
    if len(rows) < 2:
        return None
    low, high = min(value for _, value in rows), max(value for _, value in rows)
    result = Axis(wording.capital(metric), low, high if high > low else low + 0.01)
    left, right, pitch, top = 24.0, width - 24, 76.0, 40.0
    # the earliest of equals last: it is the best
    ordered = [rows[at] for at in sorted(range(len(rows)), key=lambda at: (rows[at][1], -at))]
    everything = [*axes, result]
    parts: list[Markup] = []
    for values, value in ordered:
        points = [
            (axis.place(value if axis is result else values[axis.name], left, right), top + pitch * at)
            for at, axis in enumerate(everything)
        ]
        share = 0.18 + 0.62 * ((value - low) / (high - low) if high > low else 1.0)
        kind = "thread best" if values is ordered[-1][0] else "thread"
        parts.append(
            svg.group([svg.path(points, kind)], kind).replace("<g ", Markup(f'<g style="--share:{share:.2f}" '), 1)
        )
    for at, axis in enumerate(everything):
        parts += _axis(axis, left, right, top + pitch * at)
    told = f"{len(rows)} complete trials over {len(axes)} fields; {metric} from {low:.4f} to {high:.4f}."
    size = (width, top + pitch * len(axes) + 30)
    return svg.drawing(f"coordinates-{width:g}", "Trials in parallel coordinates", told, size, parts)


def _axis(axis: Axis, left: float, right: float, y: float) -> list[Markup]:
    parts = [svg.line(left, y, right, y, "base")]
    parts.append(svg.text(left - 16, y - 12, wording.short(axis.name, _NAME_LENGTH), class_="name"))
    ticks = axis.ticks
    ends = [left] * _LINES  # of what stands in each line below the axis
    for at, (value, words) in enumerate(ticks):
        x, wide = axis.place(value, left, right), svg.text_width(words)
        anchor, before = ("start", 0.0) if at == 0 else ("end", wide) if at == len(ticks) - 1 else ("middle", wide / 2)
        parts.append(svg.line(x, y - 4, x, y + 4, "tick"))
        free = next((line for line in range(_LINES) if ends[line] <= x - before), None)
        if free is not None:  # else too many to be read: the table of trials has them
            parts.append(svg.text(x, y + 18 + _LINE * free, words, anchor, "name"))
            ends[free] = x - before + wide + _GAP
    return parts
