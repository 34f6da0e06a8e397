from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from compress.measure.latency import P99_SAMPLES, count_rounds, measure_latency, reference_point, speedup
from compress.report.schema import Latency

ITEMS = [bytes([at]) for at in range(10)]


class Slow:
    """Takes known times to prepare and to compute, and remembers how it was called."""

    labels = ("a", "b")

    def __init__(self, prepare_ms: float = 0, compute_ms: float = 0) -> None:
        self.prepare_ms, self.compute_ms = prepare_ms, compute_ms
        self.calls: list[list[bytes]] = []
        self.collecting: set[bool] = set()

    def prepare(self, items: Sequence[bytes]) -> np.ndarray:
        self.calls.append(list(items))
        self.collecting.add(gc.isenabled())
        _spin(self.prepare_ms)
        return np.zeros((len(items), 1))

    def compute(self, inputs: np.ndarray) -> np.ndarray:
        _spin(self.compute_ms)
        return np.zeros((len(inputs), 2))


def _spin(ms: float) -> None:
    end = time.perf_counter() + ms / 1e3
    while time.perf_counter() < end:
        pass


def test_total_holds_preparation_and_compute_does_not() -> None:
    runner = Slow(prepare_ms=2, compute_ms=1)
    entry = measure_latency(lambda *_: runner, ["v"], ITEMS, [1], [1], 20, seed=0).variants["v"][0]
    assert entry.total_p50 >= 3
    assert 1 <= entry.compute_p50 < entry.total_p50 - 1.9
    assert entry.total_p50 <= entry.total_p95
    assert entry.total_p99 is None


def test_variants_are_timed_in_turn_on_the_same_items() -> None:
    runners = {"one": Slow(), "two": Slow()}
    measure_latency(lambda name, _: runners[name], list(runners), ITEMS, [1, 4], [1], 50, seed=3)
    assert runners["one"].calls == runners["two"].calls
    drawn = [tuple(call) for call in runners["one"].calls if len(call) == 4]
    assert len(set(drawn)) > 20  # batches are drawn, not one and the same


def test_a_round_times_every_variant_before_the_next_begins_in_changing_order() -> None:
    told: list[str] = []

    class Named(Slow):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def prepare(self, items: Sequence[bytes]) -> np.ndarray:
            told.append(self.name)
            return super().prepare(items)

    runners = {name: Named(name) for name in "abc"}
    measure_latency(lambda name, _: runners[name], list("abc"), ITEMS, [1], [1], 40, seed=0)
    rounds = ["".join(told[start : start + 6]) for start in range(len(told) - 240, len(told), 6)]
    assert all(order[0::2] == order[1::2] for order in rounds)  # each timed call follows one of the same variant
    assert all(sorted(order[1::2]) == list("abc") for order in rounds)
    assert len(set(rounds)) > 1


def test_larger_batches_get_fewer_samples_but_never_too_few() -> None:
    runner, rounds = Slow(), []
    result = measure_latency(
        lambda *_: runner, ["v"], ITEMS, [1, 4, 32], [1, 2], 1000, 0, on_round=lambda: rounds.append(1)
    )
    entries = result.variants["v"]
    assert [(entry.batch, entry.threads, entry.n) for entry in entries] == [
        (batch, threads, n) for threads in (1, 2) for batch, n in ((1, 1000), (4, 250), (32, 100))
    ]
    assert len(rounds) == count_rounds([1, 4, 32], [1, 2], 1000) == 2700
    assert [entry.total_p99 is not None for entry in entries] == [entry.n >= P99_SAMPLES for entry in entries]
    assert reference_point(entries) is entries[0]


def test_threads_are_handed_on_and_everything_is_as_before_afterwards() -> None:
    runner, opened = Slow(), []
    before = torch.get_num_threads()

    def open_runner(name: str, threads: int) -> Slow:
        opened.append((name, threads, torch.get_num_threads()))
        return runner

    measure_latency(open_runner, ["v", "w"], ITEMS, [1], [1, 3], 20, seed=0)
    assert opened == [("v", 1, 1), ("w", 1, 1), ("v", 3, 3), ("w", 3, 3)]
    assert torch.get_num_threads() == before
    assert False in runner.collecting  # while it is timed, no garbage is collected
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_failure() -> None:
    class Broken(Slow):
        def compute(self, inputs: np.ndarray) -> np.ndarray:
            if not gc.isenabled():
                raise ZeroDivisionError
            return super().compute(inputs)

    with pytest.raises(ZeroDivisionError):
        measure_latency(lambda *_: Broken(), ["v"], ITEMS, [1], [1], 20, seed=0)
    assert gc.isenabled()


def test_the_reference_point_is_batch_one_on_one_thread() -> None:
    entries = [
        Latency(batch=batch, threads=threads, total_p50=1, total_p95=1, total_p99=None, compute_p50=1, n=20)
        for batch, threads in ((8, 1), (1, 2), (1, 1))
    ]
    assert reference_point(entries) is entries[2]


class Interrupted(Slow):
    """Another program has the core for 4 ms of each call."""

    def compute(self, inputs: np.ndarray) -> np.ndarray:
        time.sleep(4e-3)
        return super().compute(inputs)


def test_what_another_program_computes_is_no_time_of_the_processor() -> None:
    runner = Interrupted(compute_ms=1)
    entry = measure_latency(lambda *_: runner, ["v"], ITEMS, [1], [1], 20, seed=0).variants["v"][0]
    assert entry.total_p50 >= 5
    assert entry.processor_p50 is not None
    assert 0.9 <= entry.processor_p50 <= entry.total_p50 - 3.5


@pytest.mark.parametrize(("threads", "gpu"), [(2, False), (1, True)])
def test_processor_time_is_not_told_where_others_may_have_computed(
    monkeypatch: pytest.MonkeyPatch, threads: int, gpu: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    entry = measure_latency(lambda *_: Slow(), ["v"], ITEMS, [1], [threads], 20, seed=0).variants["v"][0]
    assert entry.processor_p50 is None


def test_a_system_that_counts_coarsely_is_asked_for_the_clock_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.measure.clock.time.get_clock_info", lambda _: SimpleNamespace(resolution=0.0156))
    entry = measure_latency(lambda *_: Slow(compute_ms=1), ["v"], ITEMS, [1], [1], 20, seed=0).variants["v"][0]
    assert entry.processor_p50 is None


def test_a_speed_up_is_of_processor_time_where_both_are_known() -> None:
    def timed(clock: float, processor: float | None) -> Latency:
        figures: dict[str, Any] = {
            "total_p50": clock,
            "total_p95": clock,
            "total_p99": None,
            "compute_p50": clock,
            "n": 20,
        }
        return Latency(batch=1, threads=1, processor_p50=processor, **figures)

    assert speedup(timed(42.0, 20.0), timed(1.6, 1.6)) == pytest.approx(12.5)
    assert speedup(timed(42.0, None), timed(2.0, 1.6)) == pytest.approx(21)
    assert speedup(timed(42.0, 20.0), timed(2.0, None)) == pytest.approx(21)
