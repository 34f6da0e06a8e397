"""What `limbeck loadtest` found, as the report shows it: a curve of the tail latency over the rate of requests."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from compress.report import svg, wording
from compress.report.schema import Report
from compress.report.svg import Entry, Scale
from compress.report.tables import Table, row, table

_FILES = "capacity*.json"
_P99 = re.compile(r"\bp99\s*<\s*([\d.]+)\s*(ms|s)\b")
_SIGN = {"held": "holds", "few": "holds"}  # of a rate that was tried; any other broke the objective or came too late
_BELOW = 0.9  # of the lowest figure, and the inverse above the highest: room in the chart


@dataclass(frozen=True)
class Load:
    """One variant under load: `rate` requests/s keep `objective`; None where none does."""

    variant: str
    objective: str
    rate: float | None
    tried: tuple[tuple[float, float, str], ...]  # requests/s, 99th percentile in ms, what became of it
    late: bool  # beyond the rate the generator was late, not the server
    split: dict[str, dict[str, Any]]  # by phase: mean_ms, p50_ms, p99_ms
    unknown: bool = False  # the generator was late even at the lowest rate, or sent too little

    @property
    def title(self) -> str:
        """`resnet8-int8-static: 1,234 requests/s keep p99<20ms`."""
        if self.unknown:
            return f"{self.variant}: no verdict on {self.objective}; the generator was late, or sent too little"
        found = "no rate keeps" if self.rate is None else f"{wording.significant(self.rate)} requests/s keep"
        late = "; beyond it the generator was late, not the server" if self.late else ""
        return f"{self.variant}: {found} {self.objective}{late}"


def read_loads(report: Report, folder: Path) -> list[Load]:
    """The load tests that lie in a run, but for those of packages that are no longer its own."""
    known = {variant.id: variant.package_id for variant in report.variants}
    loads = []
    for file in sorted((folder / "loadtest").glob(_FILES)):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if known.get(content["variant"], "") == content["package_id"]:
                loads.append(_load(content))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a file of another version: the load test writes it again
    return loads


def _load(content: dict[str, Any]) -> Load:
    probes = [probe for search in content["searches"] for probe in search["probes"]]
    tried = [(float(probe["rate"]), probe["p99_ms"], str(probe["outcome"])) for probe in probes]
    return Load(
        variant=str(content["variant"]),
        objective=str(content["asked"]["objective"]),
        rate=content["requests_per_second"],
        tried=tuple((rate, float(p99), outcome) for rate, p99, outcome in tried if p99 and math.isfinite(p99)),
        late=any(search["limited_by"] == "generator" for search in content["searches"]),
        split=content["time_split"],
        unknown=content.get("verdict") == "NO VERDICT",
    )


def load_curve(load: Load, width: float = svg.WIDE) -> Markup | None:
    """The 99th percentile at every rate that was tried, both logarithmic; None where none was answered."""
    if not load.tried:
        return None
    limit, height, left = _limit(load), 280.0, 52.0
    rates, tails = [rate for rate, _, _ in load.tried], [tail for _, tail, _ in load.tried]
    x_ticks = svg.log_ticks(_BELOW * min(rates), max(rates) / _BELOW)
    ends = [*tails, *([limit] if limit else [])]
    y_ticks = svg.log_ticks(_BELOW * min(ends), max(ends) / _BELOW)
    x = Scale(x_ticks[0], x_ticks[-1], left, width - 16, log=True)
    y = Scale(y_ticks[0], y_ticks[-1], height - 48, 28, log=True)
    parts = _axes(x, y, x_ticks, y_ticks)
    if limit:
        parts.append(svg.line(x.start, y(limit), x.end, y(limit), "margin"))
    if load.rate:
        parts.append(svg.line(x(load.rate), y.start, x(load.rate), y.end, "zero"))
    for rate, tail, outcome in load.tried:
        parts.append(svg.marker("student", x(rate), y(tail), _SIGN.get(outcome, "open")))
    parts += [svg.tip(x(rate), y(tail), _told(rate, tail, outcome), width) for rate, tail, outcome in load.tried]
    entries = [Entry("holds", "held"), Entry("open", "broke it, or the generator was late")]
    entries += [Entry("margin", "the objective")] if limit else []
    legend, bottom = svg.legend(entries, 8, height + 8, width - 8)
    name = f"load-{re.sub('[^A-Za-z0-9]', '-', load.variant)}-{width:g}"
    description = ". ".join("; ".join(_told(*one)) for one in load.tried)
    return svg.drawing(name, load.title, description, (width, bottom), [*parts, *legend], told=True)


def _axes(x: Scale, y: Scale, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[Markup]:
    parts = [svg.text(8, 12, "99th percentile of latency, ms", class_="axis")]
    parts.append(svg.text(x.end, y.start + 38, "Requests a second, open loop", "end", "axis"))
    for tick in y_ticks:
        parts.append(svg.line(x.start, y(tick), x.end, y(tick), "grid"))
        parts.append(svg.text(x.start - 8, y(tick) + 4, f"{tick:g}", "end"))
    for tick in x_ticks:
        parts.append(svg.line(x(tick), y.start, x(tick), y.start + 5, "tick"))
        parts.append(svg.text(x(tick), y.start + 18, f"{tick:g}", "middle"))
    return [*parts, svg.line(x.start, y.start, x.end, y.start, "base")]


def _told(rate: float, tail: float, outcome: str) -> tuple[str, ...]:
    words = {"held": "held", "few": "held, while searching", "late": "the generator was late"}
    return (
        f"{wording.significant(rate)} requests/s",
        f"p99 {wording.milliseconds(tail)}",
        words.get(outcome, "broke the objective"),
    )


def _limit(load: Load) -> float | None:
    """The 99th percentile that the objective allows, in ms; None where it allows any."""
    found = _P99.search(load.objective)
    return None if found is None else float(found[1]) * (1000 if found[2] == "s" else 1)


def split_table(load: Load) -> Table | None:
    """Where the server's time went at the rate that held; None where it is not known."""
    rows = [
        row(phase, *(wording.significant(part[key]) for key in ("mean_ms", "p50_ms", "p99_ms")))
        for phase, part in load.split.items()
    ]
    columns = ["Phase", "Mean, ms", "p50, ms", "p99, ms"]
    return table(f"{load.variant}: where the server’s time goes at that rate", columns, rows) if rows else None
