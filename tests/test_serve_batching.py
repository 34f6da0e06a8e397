"""Dynamic batching: who joins whom, who waits, and what one bad or abandoned request does to the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_package

from serve.batching import Batcher, check_batching, compute_each
from serve.errors import RequestError, UserError
from serve.manifest import ServingConfig

POISON = -1


class Model:
    """Doubles what it is given, as a model run would; notes each batch, and can be held."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.running, self.go = threading.Event(), threading.Event()
        self.go.set()

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        self.batches.append(inputs[:, 0].tolist())
        self.running.set()
        assert self.go.wait(10)
        if (inputs == POISON).any():
            raise RuntimeError("the model failed")
        return inputs[:, :1].astype(np.float32) * 2

    def hold(self) -> None:
        self.running.clear()
        self.go.clear()


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def batcher_of(model: Model) -> Iterator[Callable[..., Batcher]]:
    made: list[Batcher] = []

    def make(max_batch: int = 4, max_wait_ms: float = 0, max_queue: int = 8, threads: int = 1) -> Batcher:
        made.append(Batcher(model, max_batch, max_wait_ms, max_queue, threads))
        return made[-1]

    yield make
    model.go.set()
    for batcher in made:
        batcher.close()


def rows(*values: int, length: int = 2) -> list[np.ndarray]:
    return [np.full((1, length), value, np.int64) for value in values]


def busy(batcher: Batcher, model: Model) -> None:
    """Have the only thread in a model run that goes on when the test says so."""
    model.hold()
    batcher.submit(rows(0))
    assert model.running.wait(10)


def test_what_came_while_the_model_ran_joins_and_each_gets_its_own(
    batcher_of: Callable[..., Batcher], model: Model
) -> None:
    batcher = batcher_of()
    busy(batcher, model)
    futures = [batcher.submit(rows(*values)) for values in ((1, 2), (3,), (4, 5, 6))]
    assert batcher.waiting == 6
    model.go.set()
    assert [[float(row[0]) for row in future.result(10).outcomes] for future in futures] == [[2, 4], [6], [8, 10, 12]]
    assert model.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert batcher.waiting == 0


def test_only_inputs_of_one_shape_join(batcher_of: Callable[..., Batcher], model: Model) -> None:
    batcher = batcher_of()
    busy(batcher, model)
    futures = [batcher.submit(rows(at, length=2 + at % 2)) for at in range(1, 5)]
    model.go.set()
    assert [float(future.result(10).outcomes[0][0]) for future in futures] == [2, 4, 6, 8]
    assert model.batches == [[0], [1, 3], [2, 4]]


def test_an_idle_thread_waits_for_more_no_longer_than_it_was_told(
    batcher_of: Callable[..., Batcher], model: Model
) -> None:
    patient = batcher_of(max_batch=2, max_wait_ms=10_000)
    first = patient.submit(rows(1))
    assert not model.running.wait(0.05)
    began = time.monotonic()
    second = patient.submit(rows(2))  # the batch is full: nothing to wait for
    first.result(10), second.result(10)
    assert model.batches == [[1, 2]]
    assert time.monotonic() - began < 9
    hurried = batcher_of(max_batch=2, max_wait_ms=20)
    assert 0.015 < hurried.submit(rows(3)).result(10).waited_s < 9


def test_a_poisonous_input_fails_alone(batcher_of: Callable[..., Batcher], model: Model) -> None:
    batcher = batcher_of(max_batch=8)
    busy(batcher, model)
    good, mixed, bad = batcher.submit(rows(1)), batcher.submit(rows(2, POISON)), batcher.submit(rows(POISON))
    model.go.set()
    assert float(good.result(10).outcomes[0][0]) == 2
    kept, failed = mixed.result(10).outcomes
    assert float(kept[0]) == 4
    assert isinstance(failed, RuntimeError)
    assert isinstance(bad.result(10).outcomes[0], RuntimeError)
    assert float(batcher.submit(rows(5)).result(10).outcomes[0][0]) == 10  # and the thread lives on


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(
    batcher_of: Callable[..., Batcher], model: Model
) -> None:
    batcher = batcher_of(max_queue=3)
    busy(batcher, model)
    waiting = batcher.submit(rows(1, 2))
    with pytest.raises(RequestError) as caught:
        batcher.submit(rows(3, 4))
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    assert dict(caught.value.headers)[b"retry-after"] == b"1"
    fits = batcher.submit(rows(3))
    model.go.set()
    assert len(waiting.result(10).outcomes) == 2
    assert len(fits.result(10).outcomes) == 1
    assert len(batcher.submit(rows(*range(5))).result(10).outcomes) == 5  # into an empty queue, any request


def test_abandoned_requests_leave_the_queue_and_make_room(batcher_of: Callable[..., Batcher], model: Model) -> None:
    batcher = batcher_of(max_queue=3)
    busy(batcher, model)
    gone = batcher.submit([*rows(1, 2), *rows(3, length=5)])
    assert gone.cancel()
    assert batcher.waiting == 0
    stays = batcher.submit(rows(4, 5, 6))
    model.go.set()
    assert [float(row[0]) for row in stays.result(10).outcomes] == [8, 10, 12]
    assert model.batches == [[0], [4, 5, 6]]
    with pytest.raises(CancelledError):
        gone.result(0)


def test_a_request_that_is_abandoned_in_the_model_harms_nobody(
    batcher_of: Callable[..., Batcher], model: Model
) -> None:
    batcher = batcher_of()
    model.hold()
    gone = batcher.submit(rows(1))
    assert model.running.wait(10)
    gone.cancel()
    model.go.set()
    assert float(batcher.submit(rows(2)).result(10).outcomes[0][0]) == 4


def test_an_old_row_is_not_kept_waiting_by_full_batches_of_another_shape(
    batcher_of: Callable[..., Batcher], model: Model
) -> None:
    batcher = batcher_of(max_batch=2, max_wait_ms=5, max_queue=100)
    busy(batcher, model)
    lone = batcher.submit(rows(7, length=9))
    time.sleep(0.02)  # it has waited its time
    others = [batcher.submit(rows(1, 2)) for _ in range(10)]
    model.go.set()
    lone.result(10), [other.result(10) for other in others]
    assert model.batches[1] == [7]


def test_closing_answers_what_is_queued_and_takes_no_more(batcher_of: Callable[..., Batcher], model: Model) -> None:
    batcher = batcher_of(max_batch=2, max_wait_ms=10_000)
    last = batcher.submit(rows(1))
    batcher.close()
    assert float(last.result(0).outcomes[0][0]) == 2
    with pytest.raises(RequestError) as caught:
        batcher.submit(rows(2))
    assert caught.value.status == 503


def test_many_requests_from_many_threads_all_get_their_own(batcher_of: Callable[..., Batcher], model: Model) -> None:
    batcher = batcher_of(max_batch=5, max_queue=10_000, threads=2)
    wrong: list[int] = []

    def client(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(50):
            values = rng.integers(1, 1000, rng.integers(1, 8)).tolist()
            future = batcher.submit([row for value in values for row in rows(value, length=int(rng.integers(1, 4)))])
            if rng.random() < 0.2 and future.cancel():
                continue
            if [float(row[0]) for row in future.result(10).outcomes] != [2.0 * value for value in values]:
                wrong.append(seed)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert batcher.waiting == 0
    assert max(map(len, model.batches)) <= 5


def test_rows_that_run_go_in_one_run() -> None:
    model = Model()
    assert len(compute_each(model, rows(1, 2, 3))) == 3
    assert model.batches == [[1, 2, 3]]


def test_a_package_that_must_not_be_batched_is_refused(tmp_path: Path) -> None:
    moving = tiny_package(tmp_path / "package", batch_invariant=False)
    check_batching(moving)
    with pytest.raises(UserError, match=r"max_batch = 8, but what this model answers depends on") as caught:
        check_batching(replace(moving, serving=ServingConfig(max_batch=8)))
    assert '"max_batch": 1' in caught.value.hint
    check_batching(replace(tiny_package(tmp_path / "steady"), serving=ServingConfig(max_batch=8)))


def test_waiting_for_a_batch_of_one_is_a_contradiction() -> None:
    with pytest.raises(ValueError, match="max_wait_ms = 2, but a batch of one waits for nobody"):
        ServingConfig(max_wait_ms=2)
    assert ServingConfig(max_batch=8, max_wait_ms=2).unbatched() == ServingConfig()
