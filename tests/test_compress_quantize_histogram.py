"""A streaming histogram: the same whatever the batches, in memory that does not grow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization.calibrate import HistogramCollector

from compress.quantize.histogram import BINS, Histogram

RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(size=200_000).astype(np.float32) * 3 + 1


def gathered(values: np.ndarray, parts: int = 1) -> Histogram:
    histogram = Histogram()
    for part in np.array_split(values, parts):
        histogram.add(part)
    return histogram


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_no_value_is_lost_and_the_extremes_are_exact(values: list[float], parts: int) -> None:
    array = np.array(values, dtype=np.float32)
    histogram = gathered(array, parts)
    assert histogram.counts.sum() == len(values)
    assert (histogram.low, histogram.high) == (array.min(), array.max())
    assert histogram.percentile_range(100) == (array.min(), array.max())


def test_a_widened_histogram_counts_as_one_that_was_wide_from_the_start() -> None:
    small_first = np.concatenate([VALUES / 100, VALUES])
    once, streamed = gathered(small_first), gathered(small_first, parts=50)
    assert once.limit == streamed.limit
    assert np.abs(np.cumsum(once.counts) - np.cumsum(streamed.counts)).max() < 0.001 * len(small_first)


def test_memory_does_not_grow_with_the_number_of_values() -> None:
    histogram = gathered(VALUES)
    before = histogram.counts.nbytes
    for _ in range(20):
        histogram.add(VALUES * 1000)
    assert histogram.counts.nbytes == before == BINS * 8


@pytest.mark.parametrize("percent", [99.0, 99.9, 99.99])
def test_percentiles_are_those_of_the_values(percent: float) -> None:
    low, high = gathered(VALUES, parts=9).percentile_range(percent)
    outside = (100 - percent) / 2
    width = 2 * gathered(VALUES).limit / BINS
    assert low == pytest.approx(np.percentile(VALUES, outside), abs=3 * width)
    assert high == pytest.approx(np.percentile(VALUES, 100 - outside), abs=3 * width)


def test_entropy_clips_rare_values_and_keeps_what_has_none() -> None:
    outliers = np.append(RANDOM.normal(size=100_000), [400.0]).astype(np.float32)
    low, high = gathered(outliers).entropy_range()
    assert -30 < low < -3
    assert 3 < high < 30
    even = RANDOM.uniform(-1, 1, 100_000).astype(np.float32)
    low, high = gathered(even).entropy_range()
    assert high - low > 1.9


def test_entropy_is_near_what_the_tools_own_calibrator_finds() -> None:
    values = np.append(RANDOM.laplace(size=100_000), [60.0, -50.0]).astype(np.float32)
    collector = HistogramCollector("entropy", True, 601, 128, 99.99, "same")
    collector.collect({"x": [values]})
    theirs = float(collector.compute_entropy()["x"][1])
    ours = gathered(values).entropy_range()[1]
    assert 0.5 < ours / theirs < 2


def test_all_zeros_and_nan() -> None:
    histogram = gathered(np.zeros(10, np.float32))
    assert histogram.percentile_range(99.9) == (0, 0)
    assert histogram.entropy_range() == (0, 0)
    with pytest.raises(ValueError, match="no number"):
        histogram.add(np.array([np.nan], np.float32))


def test_the_zeros_of_a_relu_do_not_pull_the_threshold_down() -> None:
    values = np.maximum(RANDOM.normal(size=200_000), 0).astype(np.float32)
    low, high = gathered(values).entropy_range()
    assert low == 0
    assert high > 0.6 * values.max()
