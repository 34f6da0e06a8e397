from __future__ import annotations

import numpy as np
import pytest

from loadtests.samples import RESOLUTION_MS, Histogram, Samples


def test_percentiles_are_exact_to_a_hundredth_of_a_millisecond() -> None:
    latencies = np.random.default_rng(0).lognormal(1, 1.5, 5_001)
    histogram = Histogram()
    for latency in latencies:
        histogram.add(float(latency))
    for percent in (1, 50, 90, 99, 99.9, 100):
        exact = np.percentile(latencies, percent, method="inverted_cdf")
        measured = histogram.percentile(percent)
        assert measured is not None
        assert exact - 1e-9 <= measured <= exact + RESOLUTION_MS + 1e-9
    assert Histogram().percentile(50) is None


def test_a_latency_on_the_grid_stays_where_it_is() -> None:
    for latency in (0.01, 0.07, 0.29, 1.1, 123.45, 1000.0):
        histogram = Histogram()
        histogram.add(latency)
        assert histogram.percentile(100) == latency


def test_memory_follows_the_latencies_and_not_their_number() -> None:
    histogram = Histogram()
    for _ in range(10_000):
        histogram.add(1.2345)
    assert len(histogram) == 10_000
    assert len(histogram.counts) == 1


def test_a_request_belongs_to_the_second_in_which_it_was_due() -> None:
    samples = Samples()
    samples.answered(0.5, 2000.0)
    samples.answered(3.2, 1.0)
    samples.failed(3.9, "status 500")
    samples.failed(4.0, "dropped", dropped=True)
    late = samples.after(1.0)
    assert (late.due, late.dropped, late.seconds) == (3, 1, 2)
    assert late.error_percent == pytest.approx(200 / 3)
    assert late.latency.percentile(100) == 1.0
    assert samples.after(0).latency.percentile(100) == 2000.0
    assert samples.after(0).goodput == pytest.approx(2 / 3)


def test_no_99th_percentile_is_written_of_few_requests() -> None:
    samples = Samples()
    for at in range(9_999):
        samples.answered(at / 1000, 1.0 + at / 1000)
    assert samples.after(0).as_json()["p99_ms"] is None
    samples.answered(9.999, 1.0)
    assert samples.after(0).as_json()["p99_ms"] == pytest.approx(10.9, abs=0.02)
