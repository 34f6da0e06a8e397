"""The search for a setting of the server, with measurements that are made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from compress.loadtest.search import Found
from compress.loadtest.tuning import WORTH_IT, Tuning, changed, shapes, told
from serve.manifest import ServingConfig

PRESENT = ServingConfig()


@dataclass
class Server:
    """Holds what `capacity` says of a setting; each measurement takes a minute."""

    capacity: Callable[[ServingConfig], float]
    asked: list[tuple[ServingConfig, float]] = field(default_factory=list)
    now: float = 0.0

    def measure(self, serving: ServingConfig, rate: float) -> Found:
        self.asked.append((serving, rate))
        self.now += 60.0
        capacity = self.capacity(serving)
        return Found(capacity if capacity >= rate else None, "objective", ())


def tuning(server: Server, cores: int = 4, batched: bool = False, budget_s: float = 1e9) -> Tuning:
    return Tuning(server.measure, PRESENT, cores, batched, 10.0, budget_s, clock=lambda: server.now)


def test_the_setting_that_holds_most_is_found_and_each_is_tried_once() -> None:
    server = Server(lambda serving: 100.0 * serving.workers**0.9 * serving.threads**0.5)
    search = tuning(server)
    assert search.run()
    assert search.best is not None
    assert (search.best.serving.workers, search.best.serving.threads) == (4, 1)
    tried = [serving for serving, _ in server.asked]
    assert tried[0] == PRESENT
    assert len(tried) == len({told(serving) for serving in tried}) == len(shapes(4))
    assert all(serving.workers * serving.threads <= 4 for serving in tried)
    assert all(serving.max_batch == 1 for serving in tried)


def test_a_setting_must_be_better_by_more_than_noise() -> None:
    server = Server(lambda serving: 100.0 if serving == PRESENT else 104.0)
    search = tuning(server)
    search.run()
    assert search.best is not None
    assert search.best.serving == PRESENT
    assert {rate for _, rate in server.asked[1:]} == {100 * WORTH_IT}


def test_batching_is_tried_with_the_best_workers_and_threads_and_then_those_again() -> None:
    def capacity(serving: ServingConfig) -> float:
        if serving.max_batch == 16 and serving.max_wait_ms == 0:
            return 1000.0 * serving.threads  # in batches, threads pay
        return 100.0 * serving.workers

    search = tuning(Server(capacity), batched=True)
    assert search.run()
    assert search.best is not None
    best = search.best.serving
    assert (best.workers, best.threads, best.max_batch, best.max_wait_ms) == (1, 4, 16, 0)


def test_a_package_that_depends_on_its_batch_is_never_batched() -> None:
    server = Server(lambda serving: 1000.0 * serving.max_batch)
    search = tuning(server, batched=False)
    search.run()
    assert {serving.max_batch for serving, _ in server.asked} == {1}


def test_no_setting_is_begun_after_the_budget_and_the_best_so_far_stays() -> None:
    server = Server(lambda serving: 100.0 * serving.workers)
    search = tuning(server, cores=8, budget_s=150.0)
    assert not search.run()
    assert len(server.asked) == 3
    assert search.best is not None
    assert search.best.serving.workers == 8
    none = tuning(Server(lambda serving: 100.0), budget_s=0.0)
    assert not none.run()
    assert [trial.serving for trial in none.trials] == [PRESENT]  # what is there now is always measured


def test_nothing_is_best_where_nothing_holds() -> None:
    server = Server(lambda serving: 1.0)
    search = tuning(server, cores=2, batched=True)
    assert search.run()
    assert search.best is None
    assert {rate for _, rate in server.asked} == {10.0}


def test_what_is_not_tuned_stays_as_it_was() -> None:
    server = Server(lambda serving: 100.0 * serving.workers)
    present = ServingConfig(graph_level="basic")
    search = Tuning(server.measure, present, 2, True, 10.0, 1e9)
    search.run()
    assert {serving.graph_level for serving, _ in server.asked} == {"basic"}


@pytest.mark.parametrize(
    ("cores", "expected"),
    [(1, [(1, 1)]), (2, [(2, 1), (1, 2), (1, 1)]), (3, [(3, 1), (1, 3), (2, 1), (1, 2), (1, 1)])],
)
def test_shapes_fit_the_cores_those_that_fill_them_first(cores: int, expected: list[tuple[int, int]]) -> None:
    assert list(shapes(cores)) == expected


def test_settings_are_told_in_words() -> None:
    assert told(changed(PRESENT, (2, 3))) == "workers 2, threads 3"
    batching = ServingConfig(max_batch=8, max_wait_ms=0.5)
    assert told(batching) == "workers 1, threads 1, max_batch 8, max_wait_ms 0.5"
