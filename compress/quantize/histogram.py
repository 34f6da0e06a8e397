"""The distribution of a tensor's values, gathered batch by batch in memory that does not grow.

A histogram over [-T, T] whose T doubles when a value lies outside: neighbouring bins are then added in pairs, so that
no count is lost. (Tools that keep what every batch gave ran out of hundreds of GB: onnxruntime#10503.)
"""

from __future__ import annotations

import numpy as np

BINS = 8192  # even, over [-T, T]
_LEVELS = 128  # of int8 on one side of zero
_CANDIDATES = 64
LARGEST = 1e30  # no activation is larger: masks put -inf or -3.4e38 where nothing shall be


class Histogram:
    """Counts int64 [BINS] of the values so far, and the smallest and largest of them."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, dtype=np.int64)
        self.limit = 0.0  # T; 0 before the first value that is not 0
        self.low, self.high = np.inf, -np.inf

    def add(self, values: np.ndarray) -> None:
        """Count `values`, float [any shape], but those of masks. Raises ValueError where one is no number."""
        if np.isnan(values).any():
            raise ValueError("a value is no number")
        values = values[np.abs(values) <= LARGEST]
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._reach(max(-low, high))
        span = self.limit or 1.0
        self.counts += np.histogram(values, bins=BINS, range=(-span, span))[0]

    def _reach(self, largest: float) -> None:
        """Widen [-T, T] so that it holds values of this size."""
        if largest <= self.limit:
            return
        if self.limit == 0:  # all so far were 0, which lies in the same bin at any T
            self.limit = float(2.0 ** np.ceil(np.log2(largest)))
        while largest > self.limit:
            quarter = BINS // 4
            self.counts = np.concatenate(
                [np.zeros(quarter, np.int64), self.counts.reshape(-1, 2).sum(axis=1), np.zeros(quarter, np.int64)]
            )
            self.limit *= 2

    @property
    def edges(self) -> np.ndarray:
        """float64 [BINS + 1]."""
        span = self.limit or 1.0
        return np.linspace(-span, span, BINS + 1)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value; 0 where there was none."""
        return (self.low, self.high) if self.low <= self.high else (0.0, 0.0)

    def percentile_range(self, percent: float) -> tuple[float, float]:
        """What holds `percent` of the values, half of the others left out at either end; within what was seen."""
        if not self.counts.any():
            return self.range
        share = np.cumsum(self.counts) / self.counts.sum()
        outside = (1 - percent / 100) / 2
        at_low = int(np.searchsorted(share, outside, side="right"))
        at_high = int(np.searchsorted(share, 1 - outside, side="left"))
        edges = self.edges
        return max(self.low, float(edges[at_low])), min(self.high, float(edges[min(at_high, BINS - 1) + 1]))

    def entropy_range(self) -> tuple[float, float]:
        """The clipping at which 128 levels tell least wrong of the distribution of sizes: TensorRT's rule.

        The threshold with the least Kullback-Leibler divergence between the clipped distribution and the same at 128
        levels (Migacz, "8-bit inference with TensorRT", GTC 2017).
        """
        half = BINS // 2
        sizes = self.counts[half:] + self.counts[:half][::-1]  # of |x|, [BINS / 2]
        # Zeros, which a ReLU makes of half of all values, are a level of their own at any threshold: not to be
        # spread over the bins beside them, or the smallest threshold always wins. (TensorRT leaves their bin out.)
        sizes[0] = min(sizes[0], sizes[1])
        used = int(np.flatnonzero(sizes).max(initial=0)) + 1
        if used <= _LEVELS:
            return self.range
        candidates = np.unique(np.linspace(_LEVELS, used, _CANDIDATES).astype(int))
        best = min(candidates, key=lambda bins: _divergence(sizes, int(bins)))
        threshold = self.limit * int(best) / half
        return max(self.low, -threshold), min(self.high, threshold)


def _divergence(sizes: np.ndarray, bins: int) -> float:
    """KL of the first `bins` counts, with what lies beyond added to the last, from themselves at _LEVELS levels."""
    clipped = sizes[:bins].astype(np.float64)
    level = np.arange(bins) * _LEVELS // bins  # which of the levels each bin falls into
    filled = np.bincount(level, weights=clipped > 0, minlength=_LEVELS)
    mean = np.bincount(level, weights=clipped, minlength=_LEVELS) / np.maximum(filled, 1)
    coarse = np.where(clipped > 0, mean[level], 0.0)
    clipped[-1] += sizes[bins:].sum()
    coarse = np.where(clipped > 0, np.maximum(coarse, 1e-9), 0.0)
    p, q = clipped / clipped.sum(), coarse / coarse.sum()
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / q[seen])).sum())
