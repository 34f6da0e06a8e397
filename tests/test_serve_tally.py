"""Requests that are counted in bursts are all counted, soon, and as if each had been counted alone."""

from __future__ import annotations

import asyncio
import random

import pytest
from prometheus_client import REGISTRY

from serve.answers import Answer
from serve.metrics import ModelMetrics
from serve.stopwatch import PHASES, Stopwatch
from serve.tally import LATEST_S, InFlight, Tally


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def answer(seconds: float, label: str, score: float) -> Answer:
    stopwatch = Stopwatch()
    for phase in PHASES[:-1]:
        stopwatch.lap(phase)
        stopwatch.laps[phase] = seconds
    return Answer(b"{}", [{"label": label, "score": score}], stopwatch)


def test_together_they_are_counted_as_one_by_one() -> None:
    draw = random.Random(0)
    drawn = [(10 ** draw.uniform(-5, 2), draw.choice("ab"), draw.random()) for _ in range(200)]
    drawn += [(0.001, "a", 0.5), (0.001, "a", 0.55)]  # on a bucket's bound
    one, many = (ModelMetrics(name, ["a", "b"], {}) for name in ("one", "many"))
    requests = [(200, answer(*each)) for each in drawn] + [(429, None), (503, None), (429, None)]
    for request in requests:
        one.count(*request)
    many.count_all(requests)
    samples = [
        sample
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.labels.get("model") == "one" and not sample.name.endswith("_created")
    ]
    assert len(samples) > 100
    for sample in samples:
        assert value(sample.name, **{**sample.labels, "model": "many"}) == pytest.approx(sample.value), sample


def test_a_request_is_counted_soon_or_when_it_is_asked_for() -> None:
    metrics = ModelMetrics("soon", ["a", "b"], {})

    async def serve() -> None:
        tally = Tally()
        tally.add(metrics, 200, answer(0.001, "a", 0.9))
        assert value("limbeck_requests_total", model="soon", status="200") is None
        tally.flush()
        assert value("limbeck_requests_total", model="soon", status="200") == 1
        tally.add(metrics, 200, answer(0.001, "a", 0.9))
        tally.add(metrics, 400, None)
        await asyncio.sleep(3 * LATEST_S)
        assert value("limbeck_requests_total", model="soon", status="200") == 2
        assert value("limbeck_requests_total", model="soon", status="400") == 1

    asyncio.run(serve())


def test_many_do_not_wait_for_their_time() -> None:
    metrics = ModelMetrics("many at once", ["a", "b"], {})

    async def serve() -> float | None:
        tally = Tally()
        for _ in range(150):
            tally.add(metrics, 200, None)
        return value("limbeck_requests_total", model="many at once", status="200")

    counted = asyncio.run(serve())
    assert counted is not None
    assert 100 <= counted < 150


def test_the_time_of_a_request_ends_when_it_is_answered_not_when_it_is_counted() -> None:
    metrics = ModelMetrics("timed", ["a", "b"], {})

    async def serve() -> float:
        tally, stopwatch = Tally(), Stopwatch()
        tally.add(metrics, 200, Answer(b"{}", [{"label": "a", "score": 0.9}], stopwatch))
        total = stopwatch.total
        await asyncio.sleep(2 * LATEST_S)
        return total

    total = asyncio.run(serve())
    assert total > 0
    assert value("limbeck_request_seconds_sum", model="timed") == pytest.approx(total)


def test_how_many_are_inside_is_told_soon_and_not_each_time() -> None:
    told: list[int] = []

    async def scenario() -> None:
        inside = InFlight(told.append)
        for _ in range(50):
            inside.moved(1)
            inside.moved(-1)
        inside.moved(1)
        inside.moved(1)
        assert told == []
        await asyncio.sleep(2 * LATEST_S)
        assert told == [2]
        inside.moved(-2)
        await asyncio.sleep(2 * LATEST_S)

    asyncio.run(scenario())
    assert told == [2, -2]
