"""Time: what the search has spent, in this session and in those before, and whether its budget is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from train.epochs import EpochRecord


class Ledger:
    """What was done in an earlier session counts as its record says; this session counts by the clock."""

    def __init__(self, budget: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget, self._clock = budget, clock
        self._began = clock()
        self._carried = 0.0
        self._seen: set[str] = set()
        self._trained_now: dict[str, float] = {}  # seconds of each model's training in this session
        self._trained_before: dict[str, float] = {}
        self.worked = False  # whether anything was done since this was last set to False

    def on_stage(self, name: str, state: str, seconds: float) -> None:
        """For the run directory: a stage was found as it was left, begun or done."""
        if state == "done":
            self.worked = True
        if state == "unchanged" and name not in self._seen and not name.startswith("students/"):
            self._carried += seconds
        if state != "started":
            self._seen.add(name)

    def on_training(self, model: str, began: float, epochs: Sequence[EpochRecord]) -> None:
        """A model has been trained for so many epochs, whenever; those of earlier sessions are counted from now on.

        `began` is what `now` said before this session asked for more of them.
        """
        total = sum(epoch.seconds for epoch in epochs)
        now = self._trained_now[model] = self._trained_now.get(model, 0.0) + self.now() - began
        self._trained_before[model] = max(self._trained_before.get(model, 0.0), total - now)

    def now(self) -> float:
        """The clock."""
        return self._clock()

    def spent(self) -> float:
        """Seconds so far."""
        return self._carried + sum(self._trained_before.values()) + self._clock() - self._began

    def left(self) -> float:
        return self.budget - self.spent()

    def over(self) -> bool:
        return self.left() <= 0
