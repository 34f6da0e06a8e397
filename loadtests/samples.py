"""Latencies to a hundredth of a millisecond, second by second, in memory that does not grow with their number."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

RESOLUTION_MS = 0.01
TAIL_NEEDS = 10_000  # requests behind a 99th percentile under load; a hundred of them are slower


@dataclass
class Histogram:
    """How often each latency was met, rounded up to RESOLUTION_MS: percentiles are exact to that."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, milliseconds: float) -> None:
        self.counts[math.ceil(round(milliseconds / RESOLUTION_MS, 6))] += 1

    def __len__(self) -> int:
        return self.counts.total()

    def percentile(self, percent: float) -> float | None:
        """The least latency [ms] that so many percent of all do not exceed; None where there is none at all."""
        rank, passed = max(1, math.ceil(len(self) * percent / 100)), 0
        for bucket in sorted(self.counts):
            passed += self.counts[bucket]
            if passed >= rank:
                return round(bucket * RESOLUTION_MS, 2)
        return None

    @classmethod
    def merged(cls, parts: Iterable[Histogram]) -> Histogram:
        total: Counter[int] = Counter()
        for part in parts:
            total.update(part.counts)
        return cls(total)


@dataclass
class Second:
    """One second of the schedule: what was due in it, whenever it was answered."""

    due: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    dropped: int = 0  # never sent, since too many were under way
    answered: Histogram = field(default_factory=Histogram)  # rightly


class Samples:
    """What became of every request of a test."""

    def __init__(self) -> None:
        self.seconds: dict[int, Second] = {}
        self.lag = Histogram()  # by how much the generator itself sent later than was due

    def second(self, due: float) -> Second:
        return self.seconds.setdefault(int(due), Second())

    def answered(self, due: float, milliseconds: float) -> None:
        """A right answer, so long after the request was due `due` seconds after the start."""
        self.second(due).due += 1
        self.second(due).answered.add(milliseconds)

    def failed(self, due: float, why: str, dropped: bool = False) -> None:
        second = self.second(due)
        second.due += 1
        second.errors[why] += 1
        second.dropped += dropped

    def after(self, warm_up: float) -> Summary:
        """All that was due from second `warm_up` on."""
        kept = [second for at, second in self.seconds.items() if at >= warm_up]
        errors: Counter[str] = Counter()
        for second in kept:
            errors.update(second.errors)
        return Summary(
            due=sum(second.due for second in kept),
            dropped=sum(second.dropped for second in kept),
            errors=errors,
            latency=Histogram.merged(second.answered for second in kept),
            seconds=len(kept),
        )


@dataclass(frozen=True)
class Summary:
    """A stretch of a test."""

    due: int
    dropped: int
    errors: Counter[str]
    latency: Histogram
    seconds: int

    @property
    def error_percent(self) -> float:
        return 100 * self.errors.total() / self.due if self.due else 0.0

    @property
    def goodput(self) -> float:
        """Right answers per second."""
        return len(self.latency) / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        tail = self.latency.percentile(99) if len(self.latency) >= TAIL_NEEDS else None
        return {
            "requests": self.due,
            "seconds": self.seconds,
            "right_answers_per_second": round(self.goodput, 2),
            "error_percent": round(self.error_percent, 4),
            "dropped": self.dropped,
            "errors": dict(self.errors.most_common(20)),
            "p50_ms": self.latency.percentile(50),
            "p90_ms": self.latency.percentile(90),
            "p95_ms": self.latency.percentile(95),
            "p99_ms": tail,  # null below TAIL_NEEDS requests
            "max_ms": self.latency.percentile(100),
        }
