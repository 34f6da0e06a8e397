"""Latency of every variant, interleaved: each round times each variant once, so a noisy machine hurts all alike.

Almost alike: where other programs want the same core, a call of 20 ms is interrupted each time and one of 1 ms hardly
ever, so that by the clock a small model seems faster than it is: 25 times instead of 13, of the student of
trec-small.toml beside two trainings. Speed-ups are therefore of processor time, wherever all of a call runs in one
thread of the processor.

Each timed call comes right after another one of the same variant, as in a server that has one model. Else it would find
the caches full of the others' weights: the 70 KB of a `cnn-16x16x32` took 0.26 ms (on a busier machine), not 0.15.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from compress.measure.clock import processor_clock
from compress.report.schema import P99_SAMPLES, QUANTILES, Latency
from serve.runner import Runner

_WARMUP = 10


class LatencyResult(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    variants: dict[str, list[Latency]]


def measure_latency(
    open_runner: Callable[[str, int], Runner],
    variants: Sequence[str],
    items: Sequence[bytes],
    batch_sizes: Sequence[int],
    threads: Sequence[int],
    samples: int,
    seed: int,
    on_round: Callable[[], None] = lambda: None,
) -> LatencyResult:
    """Time each variant on real request bytes, at each batch size and number of threads.

    `open_runner(variant, threads)` gives a runner. Larger batches get fewer samples, at least 100 or `samples`.
    """
    result: dict[str, list[Latency]] = {variant: [] for variant in variants}
    before = torch.get_num_threads()
    for count in threads:
        torch.set_num_threads(count)
        runners = {variant: open_runner(variant, count) for variant in variants}
        for batch in batch_sizes:
            rounds = max(min(100, samples), samples // batch)
            times = _rounds(runners, items, batch, rounds, seed, on_round)
            for variant in variants:
                result[variant].append(_summary(times[variant], batch, count))
    torch.set_num_threads(before)
    return LatencyResult(variants=result)


def reference_point(latency: Sequence[Latency], threads: int = 1) -> Latency:
    """Batch 1: where speed-ups (1 thread) and limits (as served) are judged. The recipe has it measured."""
    return next(entry for entry in latency if entry.batch == 1 and entry.threads == threads)


def speedup(base: Latency, own: Latency) -> float:
    """How many times as fast as `base`: of the medians of processor time, or by the clock where that is not known."""
    if base.processor_p50 and own.processor_p50:
        return base.processor_p50 / own.processor_p50
    return base.total_p50 / own.total_p50


def count_rounds(batch_sizes: Sequence[int], threads: Sequence[int], samples: int) -> int:
    """How often `measure_latency` will call `on_round`."""
    return len(threads) * sum(max(min(100, samples), samples // batch) for batch in batch_sizes)


def _rounds(
    runners: dict[str, Runner], items: Sequence[bytes], batch: int, rounds: int, seed: int, on_round: Callable[[], None]
) -> dict[str, np.ndarray]:
    """Milliseconds (total, compute, processor) of each variant in each round: float [rounds, 3]."""
    generator = np.random.default_rng(seed)
    names = list(runners)
    times = {name: np.empty((rounds, 3)) for name in names}
    clock = processor_clock() or _unknown
    for runner in runners.values():
        for _ in range(_WARMUP):
            runner.compute(runner.prepare([items[0]] * batch))
    gc.collect()
    gc.disable()  # a collection in the middle of one variant's call would be charged to it
    try:
        for round_ in range(rounds):
            ahead, chosen = ([items[row] for row in generator.integers(0, len(items), batch)] for _ in range(2))
            for name in generator.permutation(names):
                runners[name].compute(runners[name].prepare(ahead))
                times[name][round_] = _time_once(runners[name], chosen, clock)
            on_round()
    finally:
        gc.enable()
    return times


def _time_once(runner: Runner, items: list[bytes], clock: Callable[[], float]) -> tuple[float, float, float]:
    """(total, compute, processor) in ms: from request bytes to labels, the model with its softmax alone, and again from
    bytes to labels, as this thread's processor time."""
    before = clock()
    start = time.perf_counter()
    inputs = runner.prepare(items)
    prepared = time.perf_counter()
    answers = runner.compute(inputs)
    computed = time.perf_counter()
    [runner.labels[row] for row in answers.argmax(axis=1)]
    end = time.perf_counter()
    after = clock()
    return (end - start) * 1e3, (computed - prepared) * 1e3, (after - before) * 1e3


def _unknown() -> float:
    return math.nan


def _processor_p50(times: np.ndarray, threads: int) -> float | None:
    """The median of [rounds] processor times; None where other threads, or a GPU, may have done a part."""
    median = float(np.median(times))
    alone = threads == 1 and not torch.cuda.is_available()
    return median if alone and median > 0 else None  # NaN is not


def _summary(times: np.ndarray, batch: int, threads: int) -> Latency:
    total, compute = times[:, 0], times[:, 1]
    p50, p95, p99 = (float(value) for value in np.percentile(total, [50, 95, 99]))
    return Latency(
        batch=batch,
        threads=threads,
        total_p50=p50,
        total_p95=p95,
        total_p99=p99 if len(total) >= P99_SAMPLES else None,
        compute_p50=float(np.median(compute)),
        processor_p50=_processor_p50(times[:, 2], threads),
        n=len(total),
        quantiles=[float(value) for value in np.quantile(total, QUANTILES)],
    )
