"""Where the server's time went during a test: its own histograms, from /metrics before and after.

Queue, preprocessing, the model, and what is left (serve/stopwatch.py), as Triton's perf_analyzer splits it.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from serve.errors import UserError, said

PHASES = ("queue", "preprocess", "compute", "overhead")
TOTAL = "total"  # from a request's whole body to its answer
_TIMEOUT_S = 10


@dataclass(frozen=True)
class Histogram:
    """A Prometheus histogram: how many seconds were at most each bound, counted from the server's start."""

    bounds: tuple[float, ...]  # s, rising; the last is infinite
    counts: tuple[float, ...]
    seconds: float  # all of them together

    def since(self, before: Histogram | None) -> Histogram:
        """What came after `before`."""
        if before is None:
            return self
        counts = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        return Histogram(self.bounds, counts, self.seconds - before.seconds)

    def percentile(self, percent: float) -> float:
        """Seconds, evenly spread within a bucket, as Prometheus' histogram_quantile has it."""
        rank, low, below = self.counts[-1] * percent / 100, 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if count >= rank and count > below:
                return low if bound == float("inf") else low + (bound - low) * (rank - below) / (count - below)
            low, below = bound, count
        return low


@dataclass(frozen=True)
class Part:
    """One phase of the requests of a test [ms]; percentiles are as fine as the histogram's buckets."""

    mean_ms: float
    p50_ms: float
    p99_ms: float
    requests: int


Split = Mapping[str, Part]  # by phase, TOTAL included
Snapshot = Mapping[str, Histogram]


def snapshot(url: str) -> Snapshot:
    """The histograms of the server at `url` by phase, and TOTAL. Raises UserError where it does not tell them."""
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=_TIMEOUT_S) as response:
            return parse(response.read().decode())
    except (urllib.error.URLError, OSError) as error:
        raise UserError(f"{url}/metrics does not answer: {said(error)}", "does the server still run?") from None


def parse(text: str) -> Snapshot:
    """From Prometheus' text format; the models of a server are added up."""
    from prometheus_client.parser import text_string_to_metric_families

    counts: dict[str, dict[float, float]] = {}
    seconds: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        if family.name not in ("limbeck_phase_seconds", "limbeck_request_seconds"):
            continue
        for sample in family.samples:
            phase = sample.labels.get("phase", TOTAL)
            if sample.name.endswith("_bucket"):
                bound = float(sample.labels["le"])
                of_phase = counts.setdefault(phase, {})
                of_phase[bound] = of_phase.get(bound, 0.0) + sample.value
            elif sample.name.endswith("_sum"):
                seconds[phase] = seconds.get(phase, 0.0) + sample.value
    return {
        phase: Histogram(tuple(sorted(found)), tuple(found[bound] for bound in sorted(found)), seconds.get(phase, 0.0))
        for phase, found in counts.items()
    }


def between(before: Snapshot, after: Snapshot) -> Split:
    """What each phase took of the requests between two snapshots; empty where there were none."""
    split = {}
    for phase in (*PHASES, TOTAL):
        if phase not in after:
            continue
        own = after[phase].since(before.get(phase))
        if (requests := int(own.counts[-1])) > 0:
            mean, p50, p99 = own.seconds / requests, own.percentile(50), own.percentile(99)
            split[phase] = Part(round(1000 * mean, 3), round(1000 * p50, 3), round(1000 * p99, 3), requests)
    return split


def typical(splits: Sequence[Split]) -> Split:
    """Of several windows at one rate: the median of each figure, and all of their requests."""
    phases = [phase for phase in (*PHASES, TOTAL) if splits and all(phase in split for split in splits)]
    return {
        phase: Part(
            mean_ms=median(split[phase].mean_ms for split in splits),
            p50_ms=median(split[phase].p50_ms for split in splits),
            p99_ms=median(split[phase].p99_ms for split in splits),
            requests=sum(split[phase].requests for split in splits),
        )
        for phase in phases
    }


def lines(split: Split) -> list[str]:
    """As a table for a terminal; nothing where nothing is known."""
    if not split:
        return []
    table = [f"time in the server, {split[TOTAL].requests:,} requests" if TOTAL in split else "time in the server"]
    table.append(f"  {'':<11}{'mean':>9}{'p50':>9}{'p99':>9}  ms")
    for phase, part in split.items():
        table.append(f"  {phase:<11}{part.mean_ms:>9.3f}{part.p50_ms:>9.3f}{part.p99_ms:>9.3f}")
    return table
