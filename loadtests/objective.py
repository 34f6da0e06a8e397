"""`--slo "p99<20ms,errors<0.1%"`: an objective in words, and whether a test met it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from loadtests.samples import TAIL_NEEDS, Histogram, Summary

Verdict = Literal["PASS", "FAIL", "NO VERDICT"]
Cause = Literal["held", "broken", "late", "few"]  # "late": the generator; "few": requests to show it by
EXIT: dict[Verdict, int] = {"PASS": 0, "FAIL": 1, "NO VERDICT": 3}
_ACHIEVED = 0.99  # of what was offered must have been answered
_LAG_MS, _LAG_SHARE = 1.0, 0.05  # the generator's own delay (p99) at most: this, or so much of the tightest limit
_LATENCY = re.compile(r"p(\d{1,2}(?:\.\d+)?)\s*<\s*(\d+(?:\.\d+)?)\s*(ms|s)")
_ERRORS = re.compile(r"errors\s*<\s*(\d+(?:\.\d+)?)\s*%")


@dataclass(frozen=True)
class Objective:
    """What must hold: percentiles of latency [ms], and the share of requests that fail [%]."""

    latency: tuple[tuple[float, float], ...]  # (percentile, milliseconds)
    errors: float | None = None

    @property
    def tightest(self) -> float | None:
        return min((limit for _, limit in self.latency), default=None)


@dataclass(frozen=True)
class Judged:
    """A verdict and what speaks for it, a sentence each."""

    verdict: Verdict
    cause: Cause
    reasons: tuple[str, ...]


def parse_objective(text: str) -> Objective:
    """Raises ValueError for what is no objective."""
    latency: list[tuple[float, float]] = []
    errors = None
    for part in (part.strip() for part in text.split(",")):
        if found := _LATENCY.fullmatch(part):
            latency.append((float(found[1]), float(found[2]) * (1000 if found[3] == "s" else 1)))
        elif found := _ERRORS.fullmatch(part):
            errors = float(found[1])
        else:
            raise ValueError(f"'{part}' is no part of an objective: expected as in p99<20ms,errors<0.1%")
    return Objective(tuple(latency), errors)


def judge(objective: Objective, summary: Summary, lag: Histogram, open_loop: bool) -> Judged:
    """FAIL where a limit is broken; NO VERDICT where the test cannot show that it holds, or whose delay broke it."""
    if open_loop and (late := _late(objective, lag)):
        return Judged("NO VERDICT", "late", (late,))
    if broken := _broken(objective, summary):
        return Judged("FAIL", "broken", tuple(broken))
    if doubts := _doubts(objective, summary):
        return Judged("NO VERDICT", "few", tuple(doubts))
    return Judged("PASS", "held", tuple(_held(objective, summary)))


def _late(objective: Objective, lag: Histogram) -> str:
    """Why the generator cannot be believed; empty if it can. Its delay is in every latency that it measured."""
    late = lag.percentile(99)
    if late is None or objective.tightest is None:
        return ""
    allowed = max(_LAG_MS, _LAG_SHARE * objective.tightest)
    if late <= allowed:
        return ""
    return (
        f"the generator itself was late by {late:.2f} ms (p99), over {allowed:g}: give it a core of its own, or "
        "a lower rate"
    )


def _broken(objective: Objective, summary: Summary) -> list[str]:
    found = []
    for percent, limit in objective.latency:
        measured = summary.latency.percentile(percent)
        if measured is not None and measured >= limit:
            found.append(f"p{percent:g} is {measured:.2f} ms, not below {limit:g}")
    if objective.errors is not None and summary.error_percent >= objective.errors and summary.errors:
        found.append(f"{_failed(summary)}, not below {objective.errors:g} %")
    if summary.due and len(summary.latency) < _ACHIEVED * summary.due and objective.errors is None:
        found.append(f"{len(summary.latency):,} of {summary.due:,} requests were answered rightly, not 99 %")
    return found


def _doubts(objective: Objective, summary: Summary) -> list[str]:
    found = []
    for percent, _ in objective.latency:
        needed = _needed(percent)
        if len(summary.latency) < needed:
            found.append(
                f"p{percent:g} of {len(summary.latency):,} requests is no evidence: {needed:,} are needed, test longer"
            )
    if not summary.due:
        found.append("no request was sent")
    return found


def _needed(percent: float) -> int:
    """A hundred requests beyond the percentile, so that its own error is about a tenth of what lies beyond it."""
    return min(TAIL_NEEDS * 100, max(100, round(100 / (1 - percent / 100))))


def _held(objective: Objective, summary: Summary) -> list[str]:
    held = [
        f"p{percent:g} is {summary.latency.percentile(percent):.2f} ms, below {limit:g}"
        for percent, limit in objective.latency
    ]
    if objective.errors is not None:
        held.append(f"{_failed(summary)}, below {objective.errors:g} %")
    return held


def _failed(summary: Summary) -> str:
    return f"{summary.error_percent:.3g} % of {summary.due:,} requests failed"
