from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.stats import binom, binomtest, chi2, multinomial

from compress.evidence.statistics import accuracy_interval, bootstrap_drop, drop_interval, mcnemar


def likelihood_score(lost: int, gained: int, n: int, drop: float) -> float:
    """The squared score statistic of "the true drop is `drop`", by brute force.

    Written unlike the code: the nuisance probability comes from the likelihood on a grid, refined around its best,
    and not from Tango's quadratic equation.
    """
    low, high = max(0.0, -drop), (1 - drop) / 2  # of p(gained); p(lost) = p(gained) + drop

    def likelihood(gain: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [
                np.where(count > 0, count * np.log(share), 0.0)
                for count, share in ((lost, gain + drop), (gained, gain), (n - lost - gained, 1 - 2 * gain - drop))
            ]
        return np.nan_to_num(sum(parts), nan=-np.inf)

    for _ in range(6):
        grid = np.linspace(low, high, 401)
        best = int(likelihood(grid).argmax())
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 400)]
    gain = grid[best]
    variance = n * (2 * gain + drop - drop**2)
    return (lost - gained - n * drop) ** 2 / variance


@pytest.mark.parametrize(
    ("lost", "gained", "n"), [(1, 0, 40), (0, 3, 60), (9, 4, 100), (30, 30, 539), (2, 50, 1821), (80, 10, 100)]
)
def test_both_limits_solve_the_score_equation(lost: int, gained: int, n: int) -> None:
    low, high = drop_interval(lost, gained, n)
    assert low < (lost - gained) / n < high
    critical = chi2.ppf(0.95, df=1)
    for limit in (low, high):
        assert likelihood_score(lost, gained, n, limit) == pytest.approx(critical, rel=2e-3)


@pytest.mark.parametrize("n", [20, 360, 10_000])
def test_without_a_discordant_item_the_limits_have_a_closed_form(n: int) -> None:
    # the nuisance probability is 0, so n * d^2 = z^2 * (d - d^2)
    edge = chi2.ppf(0.95, df=1) / (n + chi2.ppf(0.95, df=1))
    assert drop_interval(0, 0, n) == pytest.approx((-edge, edge), rel=1e-6)


@pytest.mark.parametrize(("lost", "gained", "n"), [(3, 9, 50), (0, 7, 20), (1, 1, 10), (2.5, 7.5, 100)])
def test_swapping_the_two_swaps_the_limits(lost: float, gained: float, n: float) -> None:
    low, high = drop_interval(lost, gained, n)
    assert drop_interval(gained, lost, n) == pytest.approx((-high, -low), abs=1e-9)


def test_limits_stay_possible_even_where_every_item_is_discordant() -> None:
    for lost in range(6):
        low, high = drop_interval(lost, 5 - lost, 5)
        assert -1 <= low < high <= 1
    assert drop_interval(5, 0, 5)[1] == pytest.approx(1, abs=1e-9)
    assert drop_interval(0, 5, 5)[0] == pytest.approx(-1, abs=1e-9)


def test_more_losses_move_both_limits_up_and_more_items_narrow_them() -> None:
    limits = np.array([drop_interval(lost, 4, 200) for lost in range(40)])
    assert (np.diff(limits, axis=0) > 0).all()
    widths = [np.ptp(drop_interval(n / 50, n / 100, n)) for n in (100, 1000, 10_000)]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


@cache
def cached_interval(lost: int, gained: int, n: int) -> tuple[float, float]:
    return drop_interval(lost, gained, n)


# Discordant rates as they come up when a good model is compressed: few, and mostly losses.
TRUTHS = [
    (539, 0.002, 0.002),
    (539, 0.010, 0.005),
    (539, 0.030, 0.010),
    (1821, 0.004, 0.002),
    (1821, 0.020, 0.015),
    (10_000, 0.002, 0.001),
    (200, 0.100, 0.050),
]


@pytest.mark.parametrize(("n", "p_lost", "p_gained"), TRUTHS)
def test_intervals_cover_the_truth_as_often_as_they_say(n: int, p_lost: float, p_gained: float) -> None:
    draws = multinomial(n, [p_lost, p_gained, 1 - p_lost - p_gained]).rvs(4000, random_state=7)
    limits = np.array([cached_interval(int(lost), int(gained), n) for lost, gained, _ in draws])
    truth = p_lost - p_gained
    covered = (limits[:, 0] <= truth) & (truth <= limits[:, 1])
    assert covered.mean() >= 0.93
    # A variant whose true drop is exactly the margin must seldom pass for non-inferior (nominal: 2.5 %).
    assert (limits[:, 1] < truth).mean() <= 0.035


def test_share_interval_is_wilsons() -> None:
    for right, n in ((0, 10), (7, 10), (533, 539), (10_000, 10_000)):
        share, z2 = right / n, chi2.ppf(0.95, df=1)
        centre = (share + z2 / (2 * n)) / (1 + z2 / n)
        half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
        assert accuracy_interval(right, n) == pytest.approx((centre - half, centre + half), abs=1e-12)
        scipys = tuple(binomtest(right, n).proportion_ci(method="wilson"))
        assert accuracy_interval(right, n) == pytest.approx(scipys, abs=1e-12)
        assert 0 <= accuracy_interval(right, n)[0] <= share <= accuracy_interval(right, n)[1] <= 1


def test_mcnemar_is_a_fair_coin_tossed_for_each_discordant_item() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(6, 6) == 1.0
    assert mcnemar(8, 0) == pytest.approx(2 * 0.5**8)
    assert mcnemar(3, 14) == mcnemar(14, 3) == pytest.approx(2 * binom.cdf(3, 17, 0.5))


def test_bootstrap_agrees_with_theory_and_depends_on_its_seed_alone() -> None:
    sample = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    low, high = bootstrap_drop(lambda rows: float(sample[rows].mean()), 400, seed=1)
    half = 1.96 * sample.std() / 20
    assert (low, high) == pytest.approx((sample.mean() - half, sample.mean() + half), abs=0.03)
    assert bootstrap_drop(lambda rows: float(sample[rows].mean()), 400, seed=1) == (low, high)
    assert bootstrap_drop(lambda rows: float(sample[rows].mean()), 400, seed=2) != (low, high)
