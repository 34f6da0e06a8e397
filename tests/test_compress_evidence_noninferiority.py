"""How often does a variant pass whose true drop is exactly the margin? Counted over all outcomes, and by simulation."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from compress.evidence.drops import Drop, exact_problems, judged_drop, margin_p
from compress.evidence.noninferiority import LEVEL, paired_p
from compress.evidence.statistics import _tango_z, accuracy_interval, drop_interval, score_z
from compress.recipe import Accept

Z = norm.ppf(1 - LEVEL)


def passed_by_score(n: int, margin: float, gain: float) -> float:
    """The probability, to the last outcome that matters, that the score limit is below a margin which is the truth."""
    loss = margin + gain
    lost = np.arange(int(binom.ppf(1 - 1e-10, n, loss)) + 2)[:, None]
    gained = np.arange(int(binom.ppf(1 - 1e-10, n, gain)) + 2)[None, :]
    chances = binom.pmf(lost, n, loss) * binom.pmf(gained, np.maximum(n - lost, 0), gain / (1 - loss))
    return float((chances * (score_z(lost, gained, n, margin) < -Z)).sum())


def margins(n: int) -> np.ndarray:
    """From the smallest that n items can prove to one of 12 losses."""
    smallest = drop_interval(0, 0, n)[1]
    return np.linspace(smallest * 1.02, max(smallest * 1.1, 12 / n), 6)


@pytest.mark.parametrize(
    ("n", "most"), [(20, 0.035), (50, 0.031), (100, 0.0262), (360, 0.026), (872, 0.026), (2000, 0.026)]
)
def test_the_score_limit_is_near_its_level(n: int, most: float) -> None:
    """Not below it, which is why a verdict asks an exact test too."""
    worst = max(passed_by_score(n, margin, gain) for margin in margins(n) for gain in (0, 0.3 / n, 2 / n, 0.02, 0.1))
    assert worst <= most


def test_the_score_statistic_is_one_formula() -> None:
    lost, gained = np.meshgrid(np.arange(12), np.arange(9))
    for drop in (0.004, 0.02, 0.3):
        expected = [
            [_tango_z(float(a), float(b), 200, drop) for a, b in zip(*row, strict=True)]
            for row in zip(lost, gained, strict=True)
        ]
        assert score_z(lost, gained, 200, drop) == pytest.approx(np.array(expected))


@cache
def passes(lost: int, gained: int, n: int, margin: float) -> bool:
    return drop_interval(lost, gained, n)[1] <= margin and paired_p(lost, gained, n, margin) <= LEVEL


@pytest.mark.parametrize(
    ("n", "margin", "gain"),
    [(100, 0.06, 0.0), (100, 0.05, 0.02), (200, 0.03, 0.01), (500, 0.02, 0.005), (2000, 0.01, 0.003)],
)
def test_a_drop_of_the_margin_passes_in_at_most_one_of_forty_splits(n: int, margin: float, gain: float) -> None:
    """By simulation, 40,000 test splits each: at most 2.5 % and three standard errors."""
    draws = np.random.default_rng(5).multinomial(n, [margin + gain, gain, 1 - margin - 2 * gain], 40_000)
    outcomes, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
    z = score_z(outcomes[:, 0], outcomes[:, 1], n, margin)
    passed = int(counts[z < -2.3].sum())  # as if all of them did
    near = (z >= -2.3) & (z <= -1.9)  # the others are beyond the score limit
    passed += sum(
        int(count)
        for (lost, gained), count in zip(outcomes[near], counts[near], strict=True)
        if passes(int(lost), int(gained), n, margin)
    )
    error = np.sqrt(LEVEL * (1 - LEVEL) / 40_000)
    assert passed / 40_000 <= LEVEL + 3 * error


def test_exact_where_the_score_limit_is_not() -> None:
    """20 items, a margin of 36.34 points, no gains: the score limit passes 3.4 % of the splits."""
    n, margin = 20, 0.3634
    lost = np.arange(n + 1)
    chances = binom.pmf(lost, n, margin)
    by_score = sum(chance for count, chance in enumerate(chances) if drop_interval(count, 0, n)[1] <= margin)
    by_both = sum(chance for count, chance in enumerate(chances) if passes(count, 0, n, margin))
    assert by_score == pytest.approx(0.0342, abs=2e-3)
    assert 0 < by_both <= LEVEL


def test_without_gains_it_is_at_least_the_binomial_test() -> None:
    for lost in (0, 1, 4):
        assert paired_p(lost, 0, 300, 0.03) >= binomtest(lost, 300, 0.03, "less").pvalue
        assert paired_p(lost, 0, 300, 0.03) < paired_p(lost + 1, 0, 300, 0.03)
    assert paired_p(0, 0, 360, 0.011) < LEVEL  # the smallest margin that a run allows can be met


def test_a_verdict_tells_when_only_the_exact_test_refuses() -> None:
    n, margin = 20, 36.34
    accept = Accept(max_drop_points=margin)
    refused = []
    for lost in range(8):
        low, high = drop_interval(lost, 0, n)
        drop = Drop(100 * lost / n, 100 * low, 100 * high, n, lost=lost, gained=0)
        p = margin_p(accept, drop)
        refused += exact_problems(accept, drop, p) and [(lost, p)]
    ((lost, p),) = refused
    assert p is not None
    assert p > binomtest(lost, n, margin / 100, "less").pvalue > LEVEL


@pytest.mark.parametrize(("n", "worst"), [(100, 88), (200, 172), (500, 419)])
def test_against_a_target_a_drop_of_the_margin_passes_in_at_most_one_of_forty_splits(n: int, worst: int) -> None:
    """Counted exactly, where Wilson's limit alone lets most pass."""
    least = 100 * accuracy_interval(worst, n)[0] - 1e-9
    accept = Accept(max_drop_points=2.0, target_percent=least + 2)
    labels = np.zeros(n, np.int64)
    by_limit = by_both = 0.0
    for right in range(n + 1):
        scores = np.eye(2)[(np.arange(n) >= right).astype(int)]
        drop = judged_drop(accept, scores, scores, labels, ("a", "b"), seed=0)
        if drop.high <= accept.max_drop_points:
            chance = float(binom.pmf(right, n, least / 100))
            by_limit += chance
            by_both += 0.0 if exact_problems(accept, drop, margin_p(accept, drop)) else chance
    assert 0.005 < by_both <= LEVEL < 0.026 < by_limit


def test_macro_f1_has_no_exact_test() -> None:
    assert margin_p(Accept(max_drop_points=1.0, metric="macro_f1"), Drop(1.0, 0.5, 1.5, 50)) is None


def test_margins_that_leave_no_room_for_gains_are_judged_too() -> None:
    for margin in (0.6, 0.99, 1.0):
        assert paired_p(5, 20, 60, margin) < LEVEL  # a drop of so much is out of reach with twenty gains
    assert paired_p(60, 0, 60, 1.0) == 1.0
    assert paired_p(59, 0, 60, 1.0) < LEVEL
