"""Paired statistics: what a variant lost against the baseline, item by item, and how sure we are.

`lost` items are right with the baseline and wrong with the variant, `gained` the other way round; both discordant.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

CONFIDENCE = 0.95  # two-sided; each limit is a one-sided 97.5 % limit
_Z = float(norm.ppf(0.5 + CONFIDENCE / 2))


def accuracy_interval(right: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927, JASA 22:209). Counts may be fractional, for projections."""
    z2, share = _Z * _Z, right / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def drop_interval(lost: float, gained: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Score interval of the paired difference (lost - gained) / n (Tango 1998, Statistics in Medicine 17:891).

    Valid for small discordant counts, where Wald's interval collapses: 0 lost and 0 gained of n still give a width.
    Counts may be fractional, for projections. Its coverage is simulated in tests/test_compress_evidence_statistics.py.
    """
    drop, critical = (lost - gained) / n, float(norm.ppf(0.5 + confidence / 2))

    def excess(candidate: float) -> float:
        return abs(_tango_z(lost, gained, n, candidate)) - critical

    edge = 1 - 1e-12
    low = -1.0 if excess(-edge) < 0 else brentq(excess, -edge, drop)
    high = 1.0 if excess(edge) < 0 else brentq(excess, drop, edge)
    return float(low), float(high)


def _tango_z(lost: float, gained: float, n: float, drop: float) -> float:
    """The score statistic for a true difference of `drop`; the nuisance probability is its constrained maximum."""
    numerator = lost - gained - n * drop
    if numerator == 0:
        return 0.0
    a = 2 * n
    b = -lost - gained + (2 * n - lost + gained) * drop
    c = -gained * drop * (1 - drop)
    q = (np.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * q + drop * (1 - drop))
    return float(numerator / np.sqrt(variance)) if variance > 0 else float(np.copysign(np.inf, numerator))


def score_z(lost: np.ndarray, gained: np.ndarray, n: int, drop: float) -> np.ndarray:
    """Tango's score statistic of many outcomes at once: counts that broadcast against each other."""
    b = -lost - gained + (2 * n - lost + gained) * drop
    q = (np.sqrt(np.maximum(b * b + 8 * n * gained * drop * (1 - drop), 0.0)) - b) / (4 * n)
    numerator, variance = lost - gained - n * drop, n * (2 * q + drop * (1 - drop))
    with np.errstate(divide="ignore", invalid="ignore"):
        z: np.ndarray = np.where(variance > 0, numerator / np.sqrt(variance), np.copysign(np.inf, numerator))
    return np.where(numerator == 0, 0.0, z)


def holm(p_values: np.ndarray) -> np.ndarray:
    """p-values float [K] of K questions, corrected for their number (Holm 1979, Scandinavian J. of Statistics 6:65)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.maximum.accumulate(p_values[order] * (len(p_values) - np.arange(len(p_values))))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided McNemar test: could `lost` and `gained` come from a fair coin?"""
    return float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


def bootstrap_drop(metric: Callable[[np.ndarray], float], n: int, seed: int, rounds: int = 2000) -> tuple[float, float]:
    """95 % percentile interval of `metric`, a function of resampled rows int64 [n], shared by what it compares."""
    generator = np.random.default_rng(seed)
    values = [metric(generator.integers(0, n, n)) for _ in range(rounds)]
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
