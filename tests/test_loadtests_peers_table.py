"""What rounds come to, with measurements that are made up."""

from __future__ import annotations

import pytest

from loadtests.peers.contenders import BARE, BENTOML, LITSERVE, OURS
from loadtests.peers.rounds import Round, Sent
from loadtests.peers.table import lines, rows, targets


def sent(latency_ms: float, per_second: float, count: int = 1000) -> Sent:
    return Sent((latency_ms,) * count, count / per_second, 0.05, latency_ms / 2)


def a_round(slower: float = 1.0, litserve: bool = True) -> Round:
    """As measured on a machine that is `slower` this time."""
    at_one = {OURS: 2.1, BARE: 2.0, BENTOML: 3.0, LITSERVE: 2.5}
    at_many = {OURS: 480.0, BARE: 500.0, BENTOML: 300.0, LITSERVE: 490.0}
    names = [name for name in at_one if litserve or name != LITSERVE]
    ones = {(name, 1): sent(at_one[name] * slower, 1000 / at_one[name] / slower) for name in names}
    return {**ones, **{(name, 16): sent(16e3 / at_many[name] * slower, at_many[name] / slower) for name in names}}


def test_ratios_are_taken_within_a_round_and_medians_over_rounds() -> None:
    rounds = [a_round(), a_round(slower=5), a_round(slower=1.5)]
    told = {(row.contender, row.connections): row for row in rows(rounds)}
    assert told[BARE, 1].p50_ms == pytest.approx(3.0)
    assert told[OURS, 1].above_bare_ms == pytest.approx(0.15)
    assert told[OURS, 16].times_bare == pytest.approx(0.96)
    assert told[OURS, 16].requests_per_second == pytest.approx(320)
    assert told[OURS, 1].p99_ms == pytest.approx(3.15, abs=0.011)
    assert [row.contender for row in rows(rounds)][:4] == [OURS, BARE, BENTOML, LITSERVE]


def test_each_target_stands_beside_what_was_measured() -> None:
    met = {target.what: target for target in targets([a_round()])}
    assert met["ms above bare, 1 connection (p50)"].met
    assert met["ms below BentoML, 1 connection (p50)"].measured == pytest.approx(0.9)
    assert met["times bare's requests/s, 16 connections"].measured == pytest.approx(0.96)
    assert met["times BentoML's requests/s, 16 connections"].met
    assert met["times LitServe's requests/s, 1 connections"].met
    assert not met["times LitServe's requests/s, 16 connections"].met
    told = lines("a text", [a_round()])
    assert any("MISSED" in line and "LitServe" in line and "0.980" in line for line in told)
    assert told[0] == "a text: medians of 1 rounds, 1,000 requests in each"


def test_a_contender_that_is_left_out_has_no_row_and_no_target() -> None:
    rounds = [a_round(litserve=False)]
    assert LITSERVE not in {row.contender for row in rows(rounds)}
    assert not [target for target in targets(rounds) if "LitServe" in target.what]


def test_no_tail_is_told_of_few_requests() -> None:
    few = {key: sent(2.0, 500, count=999) for key in a_round()}
    assert {row.p99_ms for row in rows([few])} == {None}
