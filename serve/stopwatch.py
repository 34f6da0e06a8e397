"""Where the time of one request goes."""

from __future__ import annotations

import time

PHASES = ("queue", "preprocess", "compute", "overhead")


class Stopwatch:
    """Runs from when a request's body is whole.

    "queue" is the wait for a thread, or for a batch; "preprocess" parsing, decoding and tokenizing; "compute" the
    model; "overhead" all the rest, up to the moment at which the answer was handed to the web server.
    """

    __slots__ = ("_last", "_started", "laps", "processor", "total")

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}  # phase -> seconds
        self.total = 0.0  # seconds in all, once it is stopped
        self.processor = 0.0  # seconds that the answering thread had a processor: neither waiting nor others beside it

    def lap(self, phase: str, seconds: float | None = None, rest: str = "queue") -> None:
        """The time since the last lap was spent on `phase`, or `seconds` of it, and the others on `rest`."""
        now = time.perf_counter()
        passed = now - self._last
        own = passed if seconds is None else min(seconds, passed)
        self.laps[phase] = self.laps.get(phase, 0.0) + own
        if own < passed:
            self.laps[rest] = self.laps.get(rest, 0.0) + passed - own
        self._last = now

    @property
    def elapsed(self) -> float:
        """Seconds since it was started."""
        return time.perf_counter() - self._started

    def stop(self) -> None:
        """To be called once. What no lap claimed is overhead."""
        self.total = time.perf_counter() - self._started
        self.laps["overhead"] = self.total - sum(self.laps.values())

    def header(self) -> bytes:
        """The laps so far as a Server-Timing header, in ms; overhead is what no lap has claimed until now."""
        rest = time.perf_counter() - self._started - sum(self.laps.values())
        parts = [f"{phase};dur={1000 * seconds:.3f}" for phase, seconds in self.laps.items()]
        return f"{', '.join(parts)}, overhead;dur={1000 * rest:.3f}".encode()
