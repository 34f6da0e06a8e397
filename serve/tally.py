"""What was answered, counted in bursts.

After each model run the processor's caches hold the model, and what counts has to come back into them: 0.07 ms for one
request (3 layers of MiniLM, 1 core), and hardly more for several together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve.answers import Answer
    from serve.metrics import ModelMetrics

LATEST_S = 0.1  # by when a request is in the metrics of its worker
_MOST = 64  # requests that wait to be counted: a burst must not hold up a request by more than a fraction of a ms


class Tally:
    """Requests of one worker that are answered and not counted yet. Used from its event loop alone."""

    def __init__(self) -> None:
        self._waiting: dict[ModelMetrics, list[tuple[int, Answer | None]]] = {}
        self._count = 0

    def add(self, metrics: ModelMetrics, status: int, answer: Answer | None) -> None:
        """Count a request within LATEST_S. Its time ends here."""
        if answer is not None:
            answer.stopwatch.stop()
        if self._count == 0:
            asyncio.get_running_loop().call_later(LATEST_S, self.flush)
        self._waiting.setdefault(metrics, []).append((status, answer))
        self._count += 1
        if self._count >= _MOST:
            self.flush()

    def flush(self) -> None:
        """Count all that waits."""
        waiting, self._waiting, self._count = self._waiting, {}, 0
        for metrics, answered in waiting.items():
            metrics.count_all(answered)


class InFlight:
    """How many requests are inside, told at most every LATEST_S: each writing of a gauge costs some microseconds."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        """`tell` hears of changes."""
        self._tell = tell
        self._change = 0
        self._due = False

    def moved(self, change: int) -> None:
        """`change` more are inside. Used from one event loop alone."""
        self._change += change
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(LATEST_S, self._flush)

    def _flush(self) -> None:
        self._due = False
        if self._change:
            self._tell(self._change)
            self._change = 0
