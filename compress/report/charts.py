"""Charts as SVG drawn here: the intervals of the drop (the heart of the page) and how each model was trained.

`pareto` has a module of its own. Every chart is drawn for a given width, so that type is never scaled down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from compress.report import svg, wording
from compress.report.pareto import Point, pareto, role_signs, titled
from compress.report.schema import Epoch
from compress.report.svg import Entry, Scale

__all__ = ["Drop", "Point", "drops", "learning", "pareto"]

_NAME_LENGTH = 34
_REACH = 8.0  # margins from zero, where the chart of drops stops: one collapsed variant must not flatten the others


@dataclass(frozen=True)
class Drop:
    """The judged drop of a variant, from the baseline or the target, and its 95 % interval, in points."""

    name: str
    points: float
    low: float
    high: float
    role: str
    marks: tuple[str, ...] = ()

    @property
    def drawable(self) -> bool:
        return all(math.isfinite(figure) for figure in (self.points, self.low, self.high))

    @property
    def title(self) -> str:
        return titled(self.name, self.marks, _NAME_LENGTH)

    @property
    def figures(self) -> str:
        return f"{wording.fixed(self.points)}  ({wording.interval(self.low, self.high)})"


def drops(
    rows: Sequence[Drop], margin: float, what: str, width: float = svg.WIDE, brief: str = "Drop"
) -> Markup | None:
    """A forest plot of `what` (`brief` where there is little room), one interval a row; None without a row.

    It has a line at zero, which is no change or the target itself, and one at the margin.
    """
    shown = [row for row in rows if row.drawable]
    if not shown:
        return None
    wide = width >= svg.WIDE
    left = 24 + max(svg.text_width(row.title) for row in shown) if wide else 12.0
    right = width - max(svg.text_width(row.figures) for row in shown) - 12 if wide else width - 12
    pitch, top = (30.0, 44.0) if wide else (46.0, 44.0)
    x, bottom = _drop_scale(shown, margin, left, right), top + pitch * len(shown)
    heights = [top + pitch * (at + (0.5 if wide else 0.7)) for at in range(len(shown))]
    parts = _drop_axis(x, bottom, f"{what if wide else brief}, points")
    parts.append(svg.text(x(margin), top - 12, f"margin {wording.fixed(margin)}", "middle", "axis"))
    for upper, lower in [(top - 6, bottom)] if wide else [(y - 9, y + 9) for y in heights]:
        parts += _drop_ground(x, margin, upper, lower)
    for row, y in zip(shown, heights, strict=True):
        parts += _drop_row(row, x, margin, y, width if wide else None)
    within = sum(row.high <= margin for row in shown)
    legend, height = svg.legend(_drop_signs(shown, margin), 8, bottom + 44, width - 8)
    title = f"{what}, of every variant, with 95 % intervals"
    description = f"{within} of {len(shown)} intervals end within the margin of {wording.points(margin)}. " + " ".join(
        f"{row.name}: {row.figures}." for row in shown
    )
    return svg.drawing(f"drops-{width:g}", title, description, (width, height), [*parts, *legend])


def _drop_scale(shown: list[Drop], margin: float, left: float, right: float) -> Scale:
    reach = max(_REACH * margin, 4.0)
    low = max(min(0.0, *(row.low for row in shown)), -reach)
    high = min(max(margin, *(row.high for row in shown)), reach)
    room = 0.06 * (high - low) or 0.5
    return Scale(low - room, high + room, left, right)


def _drop_axis(x: Scale, bottom: float, title: str) -> list[Markup]:
    parts = [svg.text(8, 12, f"{title}; further right is worse", class_="axis")]
    for tick in svg.linear_ticks(x.low, x.high, int((x.end - x.start) / 45)):
        parts.append(svg.line(x(tick), bottom, x(tick), bottom + 5, "tick"))
        parts.append(svg.text(x(tick), bottom + 20, f"{tick:g}".replace("-", "\N{MINUS SIGN}"), "middle"))
    return [*parts, svg.line(x.start, bottom, x.end, bottom, "base")]


def _drop_ground(x: Scale, margin: float, upper: float, lower: float) -> list[Markup]:
    """The ground beyond the margin is shaded, the margin dashed, zero solid."""
    return [
        svg.tag("rect", x=x(margin), y=upper, width=x.end - x(margin), height=lower - upper, class_="beyond"),
        svg.line(x(0), upper, x(0), lower, "zero"),
        svg.line(x(margin), upper, x(margin), lower, "margin"),
    ]


def _drop_row(row: Drop, x: Scale, margin: float, y: float, width: float | None) -> list[Markup]:
    """One interval; name and figures beside it, or above it where no `width` is given."""
    kind = "holds" if row.high <= margin else "open"
    parts = [svg.line(x(row.low), y, x(row.high), y, f"span {kind}")]
    for end in (row.low, row.high):
        if x.low <= end <= x.high:
            parts.append(svg.line(x(end), y - 4, x(end), y + 4, f"span {kind}"))
        else:  # it goes on beyond the chart
            tip, back = x(end), 6 if end < x.low else -6
            parts.append(svg.path([(tip + back, y - 5), (tip, y), (tip + back, y + 5)], f"span {kind}"))
    if x.low <= row.points <= x.high:
        parts.append(svg.marker(row.role, x(row.points), y, kind))
    if "selected" in row.marks:
        parts.append(svg.ring(x(row.points), y))
    if width is None:
        return [*parts, svg.text(8, y - 15, row.title, class_="name"), svg.text(x.end, y - 15, row.figures, "end")]
    return [*parts, svg.text(8, y + 4, row.title, class_="name"), svg.text(width - 4, y + 4, row.figures, "end")]


def _drop_signs(shown: list[Drop], margin: float) -> list[Entry]:
    signs = role_signs(row.role for row in shown)
    if any(row.high <= margin for row in shown):
        signs.append(Entry("holds", "filled: within the margin"))
    if any(row.high > margin for row in shown):
        signs.append(Entry("open", "hollow: not shown to be within it"))
    return signs


_PANEL = svg.NARROW / 2  # the width of one of two side by side


def learning(name: str, epochs: Sequence[Epoch], ident: str) -> Markup | None:
    """Loss and validation accuracy of one model by epoch, two panels side by side; None without an epoch."""
    losses = [(at.epoch, at.loss) for at in epochs if math.isfinite(at.loss)]
    rates = [(at.epoch, 100 * at.accuracy) for at in epochs if math.isfinite(at.accuracy)]
    if not losses and not rates:
        return None
    parts = [*_panel(losses, "Training loss", 0, 2), *_panel(rates, "Validation accuracy, %", _PANEL, 2)]
    told = [f"{len(epochs)} epochs"]
    if losses:
        told.append(f"the loss went from {wording.significant(losses[0][1])} to {wording.significant(losses[-1][1])}")
    if rates:
        told.append(f"accuracy on validation ended at {wording.fixed(rates[-1][1])} %")
    description = ", ".join(told) + "."
    return svg.drawing(ident, f"Training of {wording.short(name, 60)}", description, (svg.NARROW, 138), parts)


def _panel(values: list[tuple[int, float]], title: str, left: float, digits: int) -> list[Markup]:
    """One small line chart between its first and its last value, neither of which it can cross."""
    parts = [svg.text(left, 12, title, class_="axis")]
    if not values:
        return [*parts, svg.text(left, 60, wording.MISSING)]
    figures = [figure for _, figure in values]
    start, end = (wording.fixed(figure, digits) for figure in (figures[0], figures[-1]))
    margin = 8.0 + (svg.text_width(start) if len(values) > 1 else 0.0)
    x = Scale(values[0][0], values[-1][0], left + margin, left + _PANEL - 16 - svg.text_width(end))
    y = Scale(min(figures), max(figures), 104, 30)
    spots = [(x(at), y(figure)) for at, figure in values]
    first, last = spots[0], spots[-1]
    if len(values) > 1:
        parts.append(svg.text(first[0] - 8, first[1] + 4, start, "end"))
        parts.append(svg.text(last[0], 132, f"{values[-1][0]} epochs", "middle"))
    return [
        *parts,
        svg.line(first[0] - 6, 116, last[0] + 6, 116, "base"),
        svg.path(spots, "curve"),
        svg.tag("circle", cx=last[0], cy=last[1], r=3.0, class_="end"),
        svg.text(last[0] + 8, last[1] + 4, end, class_="name"),
        svg.text(first[0], 132, str(values[0][0]), "middle"),
    ]
