"""The calibration curve: how often answers of a score are right (Guo et al. 2017, arXiv 1706.04599, figure 4)."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from compress.report import facts, svg, wording
from compress.report.schema import ReliabilityBin, Report
from compress.report.svg import Entry, Scale

_SIDE, _LEFT, _TOP = 290.0, 42.0, 30.0
_LEAST, _GREATEST = 2.5, 11.0  # radius of a point, by the items that it stands for


def calibration(report: Report) -> Markup | None:
    """The choice's curve, for wide and narrow pages alike; None where it has no audit."""
    choice = facts.chosen(report)
    bins = [] if choice is None or choice.audit is None else [one for one in choice.audit.reliability if one.n]
    if choice is None or not bins:
        return None
    x, y = Scale(0, 100, _LEFT, _LEFT + _SIDE), Scale(0, 100, _TOP + _SIDE, _TOP)
    most = max(one.n for one in bins)
    curve = [(x(100 * one.score), y(100 * one.accuracy)) for one in bins]
    points = list(zip(bins, curve, strict=True))
    parts = [
        *_axes(x, y),
        svg.line(x(0), y(0), x(100), y(100), "ideal"),
        svg.path(curve, "curve"),
        *[svg.tag("circle", cx=at, cy=up, r=_radius(one.n, most), class_="bin") for one, (at, up) in points],
        *[svg.tip(at, up, _told(one), svg.NARROW) for one, (at, up) in points],
    ]
    signs, bottom = svg.legend(
        [Entry("ideal", "right as often as it says"), Entry("bin", "area: items")], 8, _TOP + _SIDE + 44, svg.NARROW - 8
    )
    description = f"{choice.id}. " + ". ".join("; ".join(_told(one)) for one in bins)
    return svg.drawing(
        "calibration", "Calibration curve", description, (svg.NARROW, bottom), [*parts, *signs], told=True
    )


def _axes(x: Scale, y: Scale) -> list[Markup]:
    parts = [svg.text(8, 12, "Right, %", class_="axis"), svg.text(x.end, y.start + 38, "Score, %", "end", "axis")]
    for tick in (0, 20, 40, 60, 80, 100):
        parts.append(svg.line(x.start, y(tick), x.end, y(tick), "base" if tick == 0 else "grid"))
        parts.append(svg.text(x.start - 8, y(tick) + 4, str(tick), "end"))
        parts.append(svg.text(x(tick), y.start + 18, str(tick), "middle"))
    return parts


def _radius(count: int, most: int) -> float:
    return max(_LEAST, _GREATEST * (count / most) ** 0.5)


def _told(one: ReliabilityBin) -> Sequence[str]:
    sure = 100 * (one.score - one.accuracy)
    return (
        f"score {wording.percent(one.score, 1)}",
        f"right {wording.percent(one.accuracy, 1)}",
        wording.plural(one.n, "test item"),
        f"too {'sure' if sure > 0 else 'unsure'} by {wording.points(abs(sure))}",
    )
