"""From a request's body to its answer, away from the event loop.

N inputs of a request, K classes.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np

from serve.answers import Answer, Namer, Prepared, error_item, refusal, to_json
from serve.batching import Batcher, Outcome, check_batching, compute_each
from serve.bodies import BODIES, Query, parse_query, shown
from serve.brief import Brief
from serve.errors import InputError, RequestError
from serve.images import MAX_PIXELS
from serve.limits import Limits, asked_workers
from serve.logs import log
from serve.manifest import ServingConfig
from serve.metrics import ModelMetrics
from serve.pool import Pool
from serve.predictor import Predictor
from serve.stopwatch import Stopwatch

DEFAULT_TOP_K = 3
_NEVER = threading.Event()
_SHORT = 1000  # labels to name, in all of a request's predictions: some 0.5 ms of the event loop
_FAILED = error_item(
    InputError("internal", "the model failed on this input", "the server's log has the details under the request id")
)


class Engine:
    """One loaded model and the threads that work for it."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        """Raises UserError for a package that asks for batching, and must not be batched."""
        self.limits = limits
        self.labels = predictor.labels
        self.task = predictor.package.manifest.task
        self._predictor = predictor
        self.model_id = predictor.package.manifest.id
        self.metrics = ModelMetrics(self.model_id, predictor.labels, predictor.package.card.get("expected", {}))
        self.model = {"id": self.model_id, "name": predictor.package.name}
        self.package_path = predictor.package.path
        self._namer = Namer(predictor.labels, predictor.package.manifest.abstain_below)
        serving = predictor.package.serving
        check_batching(predictor.package)
        threads = pool_size(serving)
        self._pool = Pool(threads, "classify")
        # Where there are two threads, they are to share the work.
        self.brief = Brief(self.task, threads == 1 and serving.max_batch == 1)
        self.long_inside = 0  # requests that are, or wait for, more than a brief turn of a thread
        self._batcher: Batcher | None = None
        if serving.max_batch > 1:
            self._batcher = Batcher(
                predictor.compute,
                serving.max_batch,
                serving.max_wait_ms,
                limits.max_queue,
                threads,
                self.metrics.batch,
            )

    def warm_up(self) -> None:
        """Answer once, so that no request pays for first times."""
        self.answer(Query([self._predictor.preparer.sample()], None))

    def close(self) -> None:
        """Free the threads. Nobody may wait for an answer any more."""
        self._pool.close()
        if self._batcher is not None:
            self._batcher.close()

    def describe(self) -> dict[str, Any]:
        """What GET /model says."""
        package = self._predictor.package
        manifest = package.manifest
        return {
            **self.model,
            "task": self.task,
            "send": BODIES[self.task],
            "labels": list(manifest.labels),
            "preprocessing": manifest.preprocessing.model_dump(mode="json"),
            "precision": manifest.precision,
            "batch_invariant": manifest.batch_invariant,
            "temperature": manifest.temperature,
            "abstain_below": manifest.abstain_below,
            "size_bytes": package.size_bytes,
            "metrics": package.card.get("metrics", {}),
            "expected": package.card.get("expected", {}).get("labels", {}),
            "limits": self._limits(),
            "default_top_k": self._default_top_k,
        }

    def _limits(self) -> dict[str, int]:
        limits = {**vars(self.limits), "max_top_k": len(self.labels)}
        if self._batcher is None:
            del limits["max_queue"]
        if self.task == "image":
            del limits["max_text_chars"]
            limits["max_pixels"] = MAX_PIXELS
        return limits

    @property
    def _default_top_k(self) -> int:
        return min(DEFAULT_TOP_K, len(self.labels))

    async def respond(self, headers: Mapping[bytes, bytes], query_string: bytes, body: bytes) -> Answer:
        """The answer to a request. Parsing, decoding and the model run in a thread, so health checks are answered.

        Raises RequestError. If the caller gives up waiting, the work ends at its next input.
        """
        abandoned = threading.Event()
        stopwatch = Stopwatch()
        asked = (headers, query_string, body, stopwatch, abandoned)
        long = not self.brief.likely(body)
        self.long_inside += long
        try:
            if self._batcher is None:
                answer = await self._pool.run(partial(self.respond_at_once, *asked))
                if self.brief.is_short(body):
                    self.brief.took(len(body), stopwatch.processor)
                return answer
            question = await self._pool.run(partial(self._read, *asked))
            batched = await asyncio.wrap_future(self._batcher.submit(question.rows))
            stopwatch.lap("compute", batched.computed_s, rest="queue")
            # Behind the inputs of others that wait for a thread, a short answer would wait longer than it takes.
            if len(question.rows) * question.top_k <= _SHORT:
                return self._reply(question, batched.outcomes)
            return await self._pool.run(partial(self._reply, question, batched.outcomes))
        finally:
            self.long_inside -= long
            abandoned.set()

    def respond_at_once(
        self,
        headers: Mapping[bytes, bytes],
        query_string: bytes,
        body: bytes,
        stopwatch: Stopwatch,
        abandoned: threading.Event = _NEVER,
    ) -> Answer:
        """The same, by the thread that calls it."""
        begin = thread_time()
        question = self._read(headers, query_string, body, stopwatch, abandoned)
        answer = self._reply(question, self._compute(question, abandoned))
        stopwatch.processor = thread_time() - begin
        return answer

    def _read(
        self,
        headers: Mapping[bytes, bytes],
        query_string: bytes,
        body: bytes,
        stopwatch: Stopwatch,
        abandoned: threading.Event,
    ) -> _Question:
        stopwatch.lap("queue")
        return self._ask(parse_query(headers, query_string, body, self.limits, self.task), abandoned, stopwatch)

    def answer(self, query: Query) -> dict[str, Any]:
        """The answer to a query, as JSON's types. Raises RequestError if not one of its inputs could be read."""
        question = self._ask(query, threading.Event(), Stopwatch())
        return self._content(question, self._compute(question, threading.Event()))

    def _ask(self, query: Query, abandoned: threading.Event, stopwatch: Stopwatch) -> _Question:
        top_k = self._default_top_k if query.top_k is None else query.top_k
        if not 1 <= top_k <= len(self.labels):
            raise RequestError(
                422, "bad_top_k", f"top_k is {shown(str(top_k))}", f"ask for 1 to {len(self.labels)}, all labels"
            )
        question = _Question([self._prepare(item, abandoned) for item in query.items], top_k, stopwatch)
        if not question.rows:
            raise refusal(question.prepared)
        stopwatch.lap("preprocess")
        return question

    def _prepare(self, item: bytes | InputError, abandoned: threading.Event) -> Prepared | InputError:
        _check_wanted(abandoned)
        try:
            return item if isinstance(item, InputError) else Prepared(*self._predictor.preparer.prepare_one(item))
        except InputError as error:
            return error

    def _compute(self, question: _Question, abandoned: threading.Event) -> list[Outcome]:
        """What the model says of each row. Those of one shape run together, so no text is filled up with padding.

        3 layers of MiniLM, 1 thread, 32 texts of SST-2: 5.2 ms a text, padded to the longest 9.3 ms; where every tenth
        text has 128 tokens 4.9 and 25.5 ms.
        """
        rows = question.rows
        alike: dict[tuple[int, ...], list[int]] = {}
        for at, row in enumerate(rows):
            alike.setdefault(row.shape, []).append(at)
        outcomes: dict[int, Outcome] = {}
        for places in alike.values():
            _check_wanted(abandoned)
            outcomes.update(
                zip(places, compute_each(self._predictor.compute, [rows[at] for at in places]), strict=True)
            )
        question.stopwatch.lap("compute")
        return [outcomes[at] for at in range(len(rows))]

    def _reply(self, question: _Question, outcomes: Sequence[Outcome]) -> Answer:
        content = self._content(question, outcomes)
        return Answer(to_json(content), content["predictions"], question.stopwatch)

    def _content(self, question: _Question, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Raises what the model raised if it failed on every row."""
        scored = [scores for scores in outcomes if isinstance(scores, np.ndarray)]
        failed = [error for error in outcomes if isinstance(error, Exception)]
        if not scored:
            raise failed[0]
        if failed:
            log.error("the model failed on %s of %s inputs", len(failed), len(outcomes), exc_info=failed[0])
        named = iter(self._namer.name(np.stack(scored), question.top_k))
        results = iter([_FAILED if isinstance(outcome, Exception) else next(named) for outcome in outcomes])
        predictions = [
            error_item(each) if isinstance(each, InputError) else _noted(next(results), each)
            for each in question.prepared
        ]
        return {"model": self.model, "predictions": predictions}


def check_servable(path: Path) -> None:
    """Raise UserError for a package that cannot be served."""
    check_batching(Predictor.load(path).package)


def pool_size(serving: ServingConfig) -> int:
    """Threads that classify: as many as fill the cores, given the workers and the threads of each model run."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (serving.threads * (asked_workers() or serving.workers)))


class _Question:
    """A request whose inputs are ready for the model, or have an error in their place."""

    def __init__(self, prepared: list[Prepared | InputError], top_k: int, stopwatch: Stopwatch) -> None:
        self.prepared = prepared
        self.top_k = top_k
        self.stopwatch = stopwatch
        self.rows = [each.inputs for each in prepared if isinstance(each, Prepared)]


def _noted(result: dict[str, Any], prepared: Prepared) -> dict[str, Any]:
    return result if "error" in result else {**result, **prepared.notes}


def _check_wanted(abandoned: threading.Event) -> None:
    if abandoned.is_set():
        raise RequestError(503, "abandoned", "nobody waits for this answer any more")
