"""The server's time by phase, from histograms that are made up and from a real server's."""

from __future__ import annotations

import httpx
import pytest
from helpers import Served, colored

from compress.loadtest.split import PHASES, TOTAL, Histogram, Part, between, lines, parse, snapshot, typical
from serve.errors import UserError

INF = float("inf")
TEXT = """# HELP limbeck_phase_seconds Time of a request by phase.
# TYPE limbeck_phase_seconds histogram
limbeck_phase_seconds_bucket{le="0.001",model="a",phase="compute"} 10.0
limbeck_phase_seconds_bucket{le="0.002",model="a",phase="compute"} 30.0
limbeck_phase_seconds_bucket{le="+Inf",model="a",phase="compute"} 40.0
limbeck_phase_seconds_sum{model="a",phase="compute"} 0.08
limbeck_phase_seconds_count{model="a",phase="compute"} 40.0
limbeck_phase_seconds_bucket{le="0.001",model="b",phase="compute"} 1.0
limbeck_phase_seconds_bucket{le="0.002",model="b",phase="compute"} 2.0
limbeck_phase_seconds_bucket{le="+Inf",model="b",phase="compute"} 3.0
limbeck_phase_seconds_sum{model="b",phase="compute"} 0.01
"""


def test_models_are_added_up_and_what_was_before_is_left_out() -> None:
    after = parse(TEXT)
    assert after["compute"] == Histogram((0.001, 0.002, INF), (11.0, 32.0, 43.0), pytest.approx(0.09))
    before = {"compute": Histogram((0.001, 0.002, INF), (1.0, 22.0, 23.0), 0.05)}
    assert between(before, after) == {"compute": Part(2.0, 1.0, 2.0, 20)}
    assert between(after, after) == {}


def test_percentiles_lie_within_their_bucket_and_never_beyond_the_last() -> None:
    histogram = Histogram((0.001, 0.002, 0.004, INF), (0.0, 50.0, 100.0, 100.0), 0.2)
    assert histogram.percentile(50) == pytest.approx(0.002)
    assert histogram.percentile(25) == pytest.approx(0.0015)
    assert histogram.percentile(75) == pytest.approx(0.003)
    assert histogram.percentile(100) == pytest.approx(0.004)
    assert Histogram((0.001, INF), (0.0, 5.0), 9.0).percentile(50) == 0.001  # at least so much is all that is known


def test_of_several_windows_each_figure_is_the_median() -> None:
    windows = [{TOTAL: Part(mean, mean / 2, mean * 3, 100)} for mean in (1.0, 5.0, 2.0)]
    assert typical(windows) == {TOTAL: Part(2.0, 1.0, 6.0, 300)}
    assert typical([]) == {}
    assert lines({}) == []
    told = lines(typical(windows))
    assert "300 requests" in told[0]
    assert told[-1].split() == ["total", "2.000", "1.000", "6.000"]


def test_a_real_server_tells_its_phases(served: Served) -> None:
    before = snapshot(served.url)
    with httpx.Client(base_url=served.url) as client:
        for _ in range(20):
            answer = client.post("/classify", content=colored(255, 0, 0), headers={"Content-Type": "image/png"})
            assert answer.status_code == 200
    split = between(before, snapshot(served.url))
    assert set(split) == {*PHASES, TOTAL}
    assert all(part.requests >= 19 for part in split.values())  # the last may be counted after it is answered
    parts = sum(split[phase].mean_ms for phase in PHASES)
    assert parts == pytest.approx(split[TOTAL].mean_ms, rel=0.05, abs=0.01)
    assert split["compute"].p50_ms <= split["compute"].p99_ms


def test_a_server_that_is_gone_is_told() -> None:
    with pytest.raises(UserError, match="does not answer"):
        snapshot("http://127.0.0.1:1")
