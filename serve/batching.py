"""Dynamic batching: prepared inputs of several requests share one run of the model.

Off unless a package's serving.json says `max_batch` above 1, which is refused where answers depend on the batch. Inputs
of one shape join, so that no text is filled up with padding. An input that the model fails on fails alone.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

import numpy as np

from serve.errors import RequestError, UserError
from serve.package import Package

Compute = Callable[[np.ndarray], np.ndarray]  # prepared inputs [N, ...] to scores [N, K]
Outcome = np.ndarray | Exception  # scores [K] of one input, or what the model raised for it alone
_RETRY = ((b"retry-after", b"1"),)


@dataclass(frozen=True)
class Batched:
    """What became of the rows of one request, in their order, and where the time went."""

    outcomes: list[Outcome]
    waited_s: float  # of its rows, the longest wait for a model run
    computed_s: float  # the model runs that its rows were in


class Batcher:
    """A bounded queue of rows and the threads that run the model on them.

    While all threads are busy, rows gather by themselves; `max_wait_ms` is for how long an idle one waits for more.
    """

    def __init__(
        self,
        compute: Compute,
        max_batch: int,
        max_wait_ms: float,
        max_queue: int,
        threads: int = 1,
        tell: Callable[[int], None] = lambda rows: None,
    ) -> None:
        """`max_batch` rows at most in one run, `max_queue` at most waiting; a request finds room in an empty queue.

        `tell` hears of the rows of each run.
        """
        self._tell = tell
        self._compute = compute
        self._max_batch = max_batch
        self._max_wait_s = max_wait_ms / 1000
        self._max_queue = max_queue
        self._waiting: dict[tuple[object, ...], deque[_Row]] = {}  # by shape and type; no queue in it is empty
        self._count = 0
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._work, name=f"batch_{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Rows that wait for a model run."""
        return self._count

    def submit(self, inputs: Sequence[np.ndarray]) -> Future[Batched]:
        """Queue prepared inputs, each a batch of one. Raises RequestError 429 where the queue has no room for them.

        A future that is cancelled takes its rows out of the queue; those in a model run finish unseen.
        """
        job = _Job(len(inputs))
        now = time.perf_counter()
        rows = [_Row(job, at, values, now) for at, values in enumerate(inputs)]
        with self._changed:
            if self._closed:
                raise RequestError(503, "not_ready", "the model is being put away", "try again in a moment", _RETRY)
            if self._count and self._count + len(rows) > self._max_queue:
                message = f"{self._count} inputs wait for the model, and no more than {self._max_queue} may"
                raise RequestError(429, "queue_full", message, "try again in a moment", _RETRY)
            for row in rows:
                self._waiting.setdefault(row.key, deque()).append(row)
            self._count += len(rows)
            self._changed.notify_all()
        job.future.add_done_callback(lambda future: self._withdraw(rows) if future.cancelled() else None)
        return job.future

    def close(self) -> None:
        """Finish what is queued, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _withdraw(self, rows: Sequence[_Row]) -> None:
        gone = set(map(id, rows))
        with self._changed:
            for key in {row.key for row in rows} & self._waiting.keys():
                left = deque(row for row in self._waiting[key] if id(row) not in gone)
                self._count -= len(self._waiting[key]) - len(left)
                self._keep(key, left)

    def _keep(self, key: tuple[object, ...], rows: deque[_Row]) -> None:
        if rows:
            self._waiting[key] = rows
        else:
            del self._waiting[key]

    def _work(self) -> None:
        while rows := self._next():
            began = time.perf_counter()
            outcomes = compute_each(self._compute, [row.values for row in rows])
            took = time.perf_counter() - began
            jobs = {id(row.job): row.job for row in rows}
            for job in jobs.values():
                job.count_run(took)
            for row, outcome in zip(rows, outcomes, strict=True):
                row.job.deliver(row.place, outcome, began - row.since)
            self._tell(len(rows))

    def _next(self) -> list[_Row]:
        """The rows of the next model run, of one shape, the oldest first; none once the batcher is closed and empty."""
        with self._changed:
            while True:
                if self._waiting and (key := self._due()) is not None:
                    queue = self._waiting[key]
                    rows = [queue.popleft() for _ in range(min(self._max_batch, len(queue)))]
                    self._keep(key, queue)
                    self._count -= len(rows)
                    return rows
                if self._closed and not self._waiting:
                    return []
                self._changed.wait(self._patience())

    def _due(self) -> tuple[object, ...] | None:
        """The shape that need not wait: that of the row that has waited its time, else one that fills a batch."""
        oldest = min(self._waiting, key=lambda key: self._waiting[key][0].since)
        if self._closed or time.perf_counter() - self._waiting[oldest][0].since >= self._max_wait_s:
            return oldest
        return next((key for key, queue in self._waiting.items() if len(queue) >= self._max_batch), None)

    def _patience(self) -> float | None:
        """Seconds until the oldest row has waited its time; None: nothing waits."""
        if not self._waiting:
            return None
        oldest = min(queue[0].since for queue in self._waiting.values())
        return max(0.0, oldest + self._max_wait_s - time.perf_counter())


def compute_each(compute: Compute, rows: Sequence[np.ndarray]) -> list[Outcome]:
    """The scores of rows of one shape, each a batch of one, in one run; one by one where that run fails."""
    try:
        return list(compute(np.concatenate(rows)))
    except Exception as error:  # whatever the runtime raises for one row must not reach the others
        return [error] if len(rows) == 1 else [compute_each(compute, [row])[0] for row in rows]


def check_batching(package: Package) -> None:
    """Raise UserError for a package that asks for batching, and whose answers would then depend on the neighbours."""
    serving = package.serving
    if serving.max_batch > 1 and not package.manifest.batch_invariant:
        raise UserError(
            f"{package.path}: serving.json says max_batch = {serving.max_batch}, but what this model answers depends "
            "on what else is in the batch",
            'set "max_batch": 1 there, or serve a package with "batch_invariant": true in its manifest.json',
        )


@dataclass(eq=False)
class _Job:
    """The rows of one request."""

    missing: int
    future: Future[Batched] = field(default_factory=Future)
    waited_s: float = 0.0
    computed_s: float = 0.0

    def __post_init__(self) -> None:
        self._outcomes: dict[int, Outcome] = {}
        self._lock = threading.Lock()  # rows of several shapes may come back from several threads

    def count_run(self, seconds: float) -> None:
        with self._lock:
            self.computed_s += seconds

    def deliver(self, place: int, outcome: Outcome, waited_s: float) -> None:
        with self._lock:
            self._outcomes[place] = outcome
            self.waited_s = max(self.waited_s, waited_s)
            if len(self._outcomes) < self.missing:
                return
        outcomes = [self._outcomes[place] for place in range(self.missing)]
        with contextlib.suppress(InvalidStateError):  # nobody waits for it any more
            self.future.set_result(Batched(outcomes, self.waited_s, self.computed_s))


@dataclass(eq=False, frozen=True)
class _Row:
    """One prepared input in the queue."""

    job: _Job
    place: int  # in its request
    values: np.ndarray  # a batch of one
    since: float  # time.perf_counter() when it came

    @property
    def key(self) -> tuple[object, ...]:
        return (*self.values.shape[1:], self.values.dtype.str)
