"""Which setting of the server holds the highest rate: one after the other, each against the best so far.

A setting must first hold a rate 5 % above the best, so that one that is no better costs a single probe. Workers and
threads are gone through first, then batching with the best of them, then workers and threads again if batching pays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from compress.loadtest.search import Found
from serve.manifest import ServingConfig

WORTH_IT = 1.05  # times the best rate so far; less is noise, and what a bisection leaves open
# Inputs in one run of the model, and for how long an idle one waits for more [ms]: without waiting, a batch is what
# gathered while the model was busy.
_BATCHES = ((4, 0.0), (16, 0.0), (64, 0.0), (16, 2.0))


@dataclass(frozen=True)
class Trial:
    """One setting, and what it held."""

    serving: ServingConfig
    needed: float  # requests per second that it had to hold, to be any better
    found: Found
    seconds: float

    @property
    def better(self) -> bool:
        return self.found.rate is not None

    def as_json(self) -> dict[str, Any]:
        return {
            "serving": self.serving.model_dump(mode="json"),
            "needed_requests_per_second": round(self.needed, 2),
            "requests_per_second": self.found.rate,
            "limited_by": self.found.limited_by,
            "probes": len(self.found.probes),
            "seconds": round(self.seconds, 1),
        }


@dataclass
class Tuning:
    """A search; `measure(setting, rate)` finds the highest rate that it holds from `rate` on, if any."""

    measure: Callable[[ServingConfig, float], Found]
    present: ServingConfig  # what is tried first
    cores: int
    batched: bool  # whether batching may be tried at all
    lowest: float  # requests per second to begin with
    budget_s: float  # after which no further setting is tried
    tell: Callable[[Trial], None] = lambda trial: None
    clock: Callable[[], float] = time.monotonic
    trials: list[Trial] = field(default_factory=list)

    @property
    def best(self) -> Trial | None:
        """The last that was better than those before."""
        return next((trial for trial in reversed(self.trials) if trial.better), None)

    def run(self) -> bool:
        """Try settings; whether there was time for all of them."""
        end = self.clock() + self.budget_s
        for serving in self._settings():
            if any(trial.serving == serving for trial in self.trials):
                continue
            if self.trials and self.clock() >= end:
                return False
            self._try(serving)
        return True

    def _settings(self) -> Iterator[ServingConfig]:
        """What is to be tried next, given what was found so far."""
        yield self.present
        unbatched = self.present.unbatched()
        for shape in shapes(self.cores):
            yield changed(unbatched, shape)
        if not self.batched or self.best is None:
            return
        around = self.best.serving.unbatched()
        for batch in _BATCHES:
            yield around.model_copy(update={"max_batch": batch[0], "max_wait_ms": batch[1]})
        if self.best.serving.max_batch > 1:
            batching = self.best.serving
            for shape in shapes(self.cores):
                yield changed(batching, shape)

    def _try(self, serving: ServingConfig) -> None:
        rate = None if self.best is None else self.best.found.rate
        needed = self.lowest if rate is None else rate * WORTH_IT
        begun = self.clock()
        trial = Trial(serving, needed, self.measure(serving, needed), self.clock() - begun)
        self.trials.append(trial)
        self.tell(trial)


def shapes(cores: int) -> Sequence[tuple[int, int]]:
    """Workers and threads of each that fit on so many cores, those that fill them first."""
    counts = sorted({1, cores, *(1 << power for power in range(cores.bit_length()) if 1 << power <= cores)})
    fitting = [(workers, threads) for workers in counts for threads in counts if workers * threads <= cores]
    return sorted(fitting, key=lambda shape: (-shape[0] * shape[1], -shape[0]))


def changed(serving: ServingConfig, shape: tuple[int, int]) -> ServingConfig:
    return serving.model_copy(update={"workers": shape[0], "threads": shape[1]})


def told(serving: ServingConfig) -> str:
    """A setting in words."""
    words = f"workers {serving.workers}, threads {serving.threads}"
    if serving.max_batch > 1:
        words += f", max_batch {serving.max_batch}, max_wait_ms {serving.max_wait_ms:g}"
    return words
