"""Times on a GPU: CUDA events, a cold L2, and enough runs for a median.

Before each run a buffer larger than the L2 is read (and not written: lines that must be written back later would be
charged to what is measured), and the device waits a moment, so that the host has queued the run before it begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, Protocol

import torch

_WAIT_CYCLES = 1_000_000  # about 0.5 ms, in which the host queues what is measured
_LEAST_FLUSH_BYTES = 256 << 20


@dataclass(frozen=True)
class Times:
    """Milliseconds of one call."""

    median_ms: float
    p20_ms: float
    p80_ms: float
    runs: int

    @classmethod
    def of(cls, milliseconds: list[float]) -> Times:
        fifths = quantiles(milliseconds, n=5) if len(milliseconds) > 1 else milliseconds * 4
        return cls(median(milliseconds), fifths[0], fifths[3], len(milliseconds))


class Timer(Protocol):
    """Gives the milliseconds of each of `runs` calls."""

    def __call__(self, run: Callable[[], Any], runs: int = ...) -> list[float]: ...


class CudaTimer:
    """The timer for the current GPU."""

    def __init__(self, warm_up: int = 10) -> None:
        self._warm_up = warm_up
        l2 = torch.cuda.get_device_properties().L2_cache_size
        self._flush = torch.zeros(max(_LEAST_FLUSH_BYTES, 4 * l2) // 4, dtype=torch.int32, device="cuda")

    def __call__(self, run: Callable[[], Any], runs: int = 100) -> list[float]:
        """`runs` calls, each from a cold L2; the first calls, which compile, are not counted."""
        for _ in range(self._warm_up):
            run()
        torch.cuda.synchronize()
        pairs = [(_event(), _event()) for _ in range(runs)]
        for start, end in pairs:
            self._flush.max()
            torch.cuda._sleep(_WAIT_CYCLES)
            start.record()
            run()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in pairs]


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)
