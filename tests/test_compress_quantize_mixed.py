"""int8-mixed: the nodes that cost answers go back to floating point, under a budget, and the best is never lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import graphs
import numpy as np
import pytest

from compress.quantize import mixed as mixing
from compress.quantize.config import Quantize
from compress.quantize.mixed import Mixed, divergence, mix
from compress.quantize.static import Static

ITEMS = graphs.ids()
MODEL = graphs.transformer(outlier=60)  # without smoothing, one activation ruins the products that read it


@pytest.fixture(autouse=True)
def _same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing._Search, "_slowdown", lambda self, model: 1.0)


def search(seconds: Iterator[float] | None = None, said: list[str] | None = None, **limits: Any) -> Mixed:
    config = Quantize.model_validate({"precisions": ["fp32", "int8-mixed"], "smoothing": 0, "mixed": limits})
    static = Static(MODEL, ITEMS, config, False)
    clock = (lambda: next(seconds)) if seconds else (lambda: 0.0)
    return mix(MODEL.SerializeToString(), static, ITEMS, config, (said if said is not None else []).append, clock)


def away(model: bytes) -> float:
    return divergence(graphs.scores(MODEL, ITEMS), graphs.scores(model, ITEMS))


def test_the_nodes_that_hurt_are_given_back() -> None:
    said: list[str] = []
    found = search(said=said)
    kept = next(row for row in found.trace if row["kept"])
    plain = found.trace[0]
    assert plain["given_back"] == []
    assert {"make_queries", "make_value_product"} & set(kept["given_back"])
    assert away(found.model) == pytest.approx(kept["divergence"], rel=1e-3, abs=1e-6)
    assert kept["divergence"] < plain["divergence"] / 2
    assert kept["flips"] <= plain["flips"]
    assert graphs.operators(found.model).count("MatMul") > 2
    assert said == found.notes
    assert "nodes back to floating point (make_" in said[0]


def test_the_best_so_far_is_kept_when_the_time_is_up() -> None:
    def clock() -> Iterator[float]:
        yield from [0.0, 1.0, 2.0]  # the beginning, and two looks before the third is too late
        while True:
            yield 1000.0

    found = search(clock(), budget_seconds=5.0)
    assert len(found.trace) == 3  # int8-static itself and two nodes
    best = min(found.trace, key=lambda row: row["divergence"])
    assert best["kept"]
    assert "when the time was up: 2 of 5 nodes were ranked" in found.notes[0]


def test_no_time_at_all_leaves_int8_static() -> None:
    found = search(iter([0.0] + [1000.0] * 9), budget_seconds=1.0)
    assert [row["kept"] for row in found.trace] == [True]
    assert "so it is int8-static" in found.notes[0]


def test_what_is_too_slow_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing._Search, "_slowdown", lambda self, model: 9.0)
    found = search(max_slowdown=1.5)
    assert found.trace[0]["kept"]
    assert not any(row["kept"] for row in found.trace[1:])


def test_divergence_is_that_of_kullback_and_leibler() -> None:
    expected, answers = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0.25, 0.75], [1.0, 0.0]])
    by_hand = (0.5 * np.log(2) + 0.5 * np.log(2 / 3)) / 2
    assert divergence(expected, answers) == pytest.approx(by_hand)
    assert divergence(expected, expected) == 0


def test_where_nothing_hurts_nothing_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "_HARMLESS", 10.0)
    found = search()
    assert found.trace[0]["kept"]
    assert "nothing worth giving back" in found.notes[0]


def test_the_time_of_a_graph_is_told_against_int8_static(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    config = Quantize(precisions=("fp32", "int8-mixed"), smoothing=0)
    searching = mixing._Search(MODEL.SerializeToString(), Static(MODEL, ITEMS, config, False), ITEMS, lambda: 0.0)
    assert searching.plain.slowdown == 1.0
    assert 0.05 < searching.attempt(("make_up_product",)).slowdown < 20
