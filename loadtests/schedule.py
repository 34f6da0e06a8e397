"""When requests are sent: a Poisson process on an absolute schedule, which no answer and no delay can shift.

A test that waits for an answer before it sends the next request leaves out what would have waited meanwhile (Tene 2013,
"How NOT to measure latency": coordinated omission). Arrivals of many users who know nothing of each other are Poisson.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """So many requests per second for so many seconds."""

    rate: float
    seconds: float


def parse_load(text: str) -> tuple[Phase, ...]:
    """ "50x10,400x2,50x10" as phases: 50 requests/s for 10 s, a spike of 400 for 2 s, 50 again. Raises ValueError."""
    return tuple(_phase(part.strip()) for part in text.split(","))


def _phase(text: str) -> Phase:
    rate, cross, seconds = text.partition("x")
    try:
        phase = Phase(float(rate), float(seconds))
    except ValueError:
        phase = Phase(0, 0)
    if not cross or not 0 < phase.rate <= 1e6 or not 0 < phase.seconds <= 1e7:
        raise ValueError(f"'{text}' is no phase: expected requests per second x seconds, as in 50x10,400x2,50x10")
    return phase


def length(phases: Sequence[Phase]) -> float:
    """Seconds in all."""
    return sum(phase.seconds for phase in phases)


def arrivals(phases: Sequence[Phase], seed: int) -> Iterator[float]:
    """Seconds after the start at which requests are due, ascending: exponential gaps, the same for the same seed.

    A gap that reaches into the next phase goes on at its rate, which keeps the process Poisson at the seam.
    """
    draw = random.Random(seed)
    begin, owed = 0.0, draw.expovariate(1.0)  # `owed`: what is left of a gap, in mean gaps
    for phase in phases:
        now = begin
        while now + owed / phase.rate < begin + phase.seconds:
            now += owed / phase.rate
            yield now
            owed = draw.expovariate(1.0)
        owed -= (begin + phase.seconds - now) * phase.rate
        begin += phase.seconds
