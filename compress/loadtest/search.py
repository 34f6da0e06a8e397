"""The highest rate that keeps an objective: doubled until it breaks, bisected, then held for several windows.

As MLPerf Inference's Server scenario asks (Reddi et al. 2020, arXiv 1911.02549): Poisson arrivals at a rate, and a
percentile of latency that must stay below its limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from compress.loadtest.split import Split, typical

Outcome = Literal["held", "broken", "late", "few"]
Kind = Literal["search", "window"]

_TOLERANCE = 1.05  # between a rate that broke and the one that is tried next below it
_STEP_DOWN = 0.95  # after a window that broke
_MOST_STEPS = 12  # down, before it is given up


@dataclass(frozen=True)
class Probe:
    """One rate, tried once."""

    rate: float
    outcome: Outcome
    kind: Kind
    p99_ms: float | None = None
    reasons: tuple[str, ...] = ()
    split: Split | None = None  # where the server's time went, warm-up included

    @property
    def fits(self) -> bool:
        """Nothing speaks against the rate. While searching, few requests do not: the windows decide."""
        return self.outcome == "held" or (self.kind == "search" and self.outcome == "few")


@dataclass(frozen=True)
class Found:
    """What one search came to."""

    rate: float | None  # requests per second that held; None: not even the lowest did
    # What was beyond it: "evidence", too few requests in a window to show anything; "nothing", the highest rate held.
    limited_by: Literal["objective", "generator", "evidence", "nothing"]
    probes: tuple[Probe, ...]

    def split(self) -> Split:
        """Where the server's time went in the windows that held; empty where there are none, or it is not known."""
        held = [probe for probe in self.probes if probe.kind == "window" and probe.rate == self.rate and probe.fits]
        return typical([probe.split for probe in held if probe.split])


@dataclass
class Search:
    """One search; `try_rate` sends at a rate and says what became of it."""

    try_rate: Callable[[float, Kind], Probe]
    lowest: float
    highest: float
    windows: int = 3
    _probes: list[Probe] = field(default_factory=list)

    def run(self) -> Found:
        low, broke = self._bracket()
        if low is None:
            return self._found(None, broke)
        if broke is not None:
            low, broke = self._bisect(low, broke)
        for _ in range(_MOST_STEPS):
            failed = self._hold(low)
            if failed is None:
                return self._found(low, broke)
            if failed.outcome == "few":  # in the same time, a lower rate sends even fewer
                return self._found(None, failed)
            low, broke = low * _STEP_DOWN, failed
            if low < self.lowest:
                break
        return self._found(None, broke)

    def _bracket(self) -> tuple[float | None, Probe | None]:
        """The last rate of those doubled that fitted, and the first that did not."""
        rate, fitting = self.lowest, None
        while True:
            probe = self._try(rate, "search")
            if not probe.fits:
                return fitting, probe
            fitting = rate
            if rate >= self.highest:
                return fitting, None
            rate = min(2 * rate, self.highest)

    def _bisect(self, low: float, broke: Probe) -> tuple[float, Probe]:
        while broke.rate / low > _TOLERANCE:
            probe = self._try((low * broke.rate) ** 0.5, "search")
            if probe.fits:
                low = probe.rate
            else:
                broke = probe
        return low, broke

    def _hold(self, rate: float) -> Probe | None:
        """None where all windows held; else the first that did not."""
        for _ in range(self.windows):
            probe = self._try(rate, "window")
            if not probe.fits:
                return probe
        return None

    def _try(self, rate: float, kind: Kind) -> Probe:
        probe = self.try_rate(rate, kind)
        self._probes.append(probe)
        return probe

    def _found(self, rate: float | None, broke: Probe | None) -> Found:
        limit: Literal["objective", "generator", "evidence", "nothing"] = "objective"
        if broke is None:
            limit = "nothing"
        elif broke.outcome == "late":
            limit = "generator"
        elif broke.outcome == "few":
            limit = "evidence"
        return Found(rate, limit, tuple(self._probes))
