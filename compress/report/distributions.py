"""How the latencies of each variant are spread: a box a variant, at batch 1 and 1 thread, on one logarithmic axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from compress.report import facts, svg, wording
from compress.report.pareto import titled
from compress.report.schema import P99_SAMPLES, QUANTILES, Report
from compress.report.svg import Entry, Scale

_NAME_LENGTH = 34


@dataclass(frozen=True)
class Spread:
    """A variant's latencies: `at` gives the milliseconds at a share of the calls."""

    title: str
    at: dict[float, float]
    calls: int

    @property
    def told(self) -> tuple[str, ...]:
        kept = ((0.05, "p5"), (0.25, "p25"), (0.5, "p50"), (0.75, "p75"), (0.95, "p95"), (1.0, "longest"))
        figures = (f"{name} {wording.milliseconds(self.at[share])}" for share, name in kept)
        return (self.title, *figures, wording.plural(self.calls, "call"))


def distributions(report: Report, width: float = svg.WIDE) -> Markup | None:
    """The drawing; None where no distribution was kept."""
    spreads = _spreads(report)
    if not spreads:
        return None
    wide = width >= svg.WIDE
    left = 24 + max(svg.text_width(spread.title) for spread in spreads) if wide else 12.0
    pitch, top = (26.0, 14.0) if wide else (44.0, 18.0)
    bottom = top + pitch * len(spreads)
    ticks = svg.log_ticks(min(one.at[0.05] for one in spreads), max(one.at[0.99] for one in spreads))
    x = Scale(ticks[0], ticks[-1], left, width - 16, log=True)
    parts = _axis(x, ticks, top, bottom)
    heights = [top + pitch * (at + (0.5 if wide else 0.72)) for at in range(len(spreads))]
    for spread, y in zip(spreads, heights, strict=True):
        parts.append(svg.text(8, y + 4 if wide else y - 14, spread.title, class_="name"))
        parts += _box(spread, x, y)
    parts += [svg.tip(x(one.at[0.5]), y, one.told, width) for one, y in zip(spreads, heights, strict=True)]
    signs = [Entry("box", "middle half, and the median"), Entry("whisker", "5th to 95th percentile")]
    signs += [Entry("bin", "99th")] if any(one.calls >= P99_SAMPLES for one in spreads) else []
    legend, height = svg.legend(signs, 8, bottom + 44, width - 8)
    description = ". ".join("; ".join(one.told) for one in spreads)
    name = f"latencies-{width:g}"
    return svg.drawing(name, "Latencies, bytes to label", description, (width, height), [*parts, *legend], told=True)


def _spreads(report: Report) -> list[Spread]:
    found = []
    for variant in report.variants:
        at = facts.single(variant)
        if at is not None and at.quantiles is not None and all(map(math.isfinite, at.quantiles)):
            title = titled(variant.id, facts.marks(report, variant), _NAME_LENGTH)
            found.append(Spread(title, dict(zip(QUANTILES, at.quantiles, strict=True)), at.n))
    return found


def _axis(x: Scale, ticks: list[float], top: float, bottom: float) -> list[Markup]:
    parts = [svg.text(x.end, bottom + 38, "One call, bytes to label, ms", "end", "axis")]
    for tick in ticks:
        parts.append(svg.line(x(tick), top, x(tick), bottom, "grid"))
        parts.append(svg.text(x(tick), bottom + 18, f"{tick:g}", "middle"))
    return [*parts, svg.line(x.start, bottom, x.end, bottom, "base")]


def _box(spread: Spread, x: Scale, y: float) -> list[Markup]:
    at = {share: x(value) for share, value in spread.at.items()}
    far = [svg.tag("circle", cx=at[0.99], cy=y, r=2.5, class_="bin")] if spread.calls >= P99_SAMPLES else []
    return [
        svg.line(at[0.05], y, at[0.95], y, "stem"),
        svg.line(at[0.05], y - 3, at[0.05], y + 3, "stem"),
        svg.line(at[0.95], y - 3, at[0.95], y + 3, "stem"),
        svg.tag("rect", x=at[0.25], y=y - 6, width=max(at[0.75] - at[0.25], 1.0), height=12.0, class_="box"),
        svg.line(at[0.5], y - 7, at[0.5], y + 7, "median"),
        *far,
    ]
