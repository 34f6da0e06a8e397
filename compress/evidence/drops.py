"""The drop of the recipe's metric, in points (1 point is 0.01): from the baseline item by item, or from a target.

N items, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.stats import binom

from compress.evidence.noninferiority import LEVEL, paired_p
from compress.evidence.statistics import accuracy_interval, bootstrap_drop, drop_interval
from compress.recipe import Accept
from serve.errors import UserError, did_you_mean
from train.metrics import macro_f1

_FEW = 52  # items; from so many on a perfect copy whose limit keeps a margin passes the exact test too


@dataclass(frozen=True)
class Drop:
    """`points` is baseline (or target) minus variant: positive is a loss. `low`, `high` are its 95 % limits."""

    points: float
    low: float
    high: float
    n: int
    lost: int | None = None  # discordant items, where the metric is a share of items
    gained: int | None = None
    right: int | None = None  # right items, where a share of items is held against a target
    target: float | None = None  # in percent; None where the drop is from the baseline

    def projected_upper(self, share: float) -> float:
        """Upper 97.5 % limit of the drop if the same rates are met on `share` times as many items."""
        n = self.n * share
        if self.target is not None and self.right is not None:
            return self.target - 100 * accuracy_interval(self.right * share, n)[0]
        if self.lost is not None and self.gained is not None:
            return 100 * drop_interval(self.lost * share, self.gained * share, n)[1]
        return self.points + (self.high - self.points) * share**-0.5  # no share of items: scale the half-width


def judged_drop(
    accept: Accept, scores: np.ndarray, baseline: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], seed: int
) -> Drop:
    """The drop that the recipe's margin is about: from its target where it states one, else from the baseline."""
    if accept.target_percent is None:
        return measure_drop(accept.metric, scores, baseline, labels, classes, seed)
    return measure_shortfall(accept.metric, accept.target_percent, scores, labels, classes, seed)


def measure_drop(
    metric: str, scores: np.ndarray, baseline: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], seed: int
) -> Drop:
    """Drop of `metric` from `baseline` scores to `scores`, both float32 [N, K], on the same items."""
    ours, theirs = scores.argmax(axis=1), baseline.argmax(axis=1)
    if metric == "macro_f1":
        k = len(classes)

        def drop(rows: np.ndarray) -> float:
            return 100 * (macro_f1(theirs[rows], labels[rows], k) - macro_f1(ours[rows], labels[rows], k))

        return _bootstrapped(drop, len(labels), seed)
    rows = metric_rows(metric, labels, classes)
    return share_drop(ours[rows] == labels[rows], theirs[rows] == labels[rows])


def share_drop(ours_right: np.ndarray, theirs_right: np.ndarray) -> Drop:
    """Drop of the share of right answers, bool [N] each, with a score interval from the discordant items."""
    n = len(ours_right)
    lost, gained = int((theirs_right & ~ours_right).sum()), int((ours_right & ~theirs_right).sum())
    low, high = drop_interval(lost, gained, n)
    return Drop(100 * (lost - gained) / n, 100 * low, 100 * high, n, lost, gained)


def measure_shortfall(
    metric: str, target: float, scores: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], seed: int
) -> Drop:
    """How far `metric` of `scores`, float32 [N, K], is below `target` (percent): a target is known, so one sample.

    Wilson's interval for accuracy and recall, the bootstrap's for macro F1.
    """
    ours = scores.argmax(axis=1)
    if metric == "macro_f1":

        def shortfall(rows: np.ndarray) -> float:
            return target - 100 * macro_f1(ours[rows], labels[rows], len(classes))

        return _bootstrapped(shortfall, len(labels), seed, target)
    rows = metric_rows(metric, labels, classes)
    n, right = int(rows.sum()), int((ours[rows] == labels[rows]).sum())
    low, high = accuracy_interval(right, n)
    return Drop(target - 100 * right / n, target - 100 * high, target - 100 * low, n, right=right, target=target)


def margin_p(accept: Accept, drop: Drop) -> float | None:
    """Exact one-sided p-value of "the true drop is the margin or more"; None for macro F1, which is no share of items.

    Against a target it is the binomial test's: Wilson's limit alone lets a metric that is the margin below its target
    pass in up to 2.8 % of all test splits of 100 items, and 2.6 % of 872.
    """
    if drop.right is not None and drop.target is not None:
        least = max(0.0, drop.target - accept.max_drop_points) / 100
        return float(binom.sf(drop.right - 1, drop.n, least))
    if drop.lost is None or drop.gained is None:
        return None
    return paired_p(drop.lost, drop.gained, drop.n, accept.max_drop_points / 100)


def exact_problems(accept: Accept, drop: Drop, p: float | None) -> list[str]:
    """What only the exact test sees: a limit within the margin by less than its own error."""
    if p is None or p <= LEVEL or drop.high > accept.max_drop_points:
        return []
    within = f"the limit is within the margin of {accept.max_drop_points:g}"
    return [f"{within}, but so close that the exact test does not follow: p = {p:.4f}, over {LEVEL:g}"]


def metric_rows(metric: str, labels: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """bool [N]: the items that `accuracy` or `recall:LABEL` is a share of. Raises UserError where there is none."""
    if metric.startswith("recall:"):
        label = metric.partition(":")[2]
        if label not in classes:
            raise UserError(f"accept.metric = '{metric}': there is no label '{label}'", did_you_mean(label, classes))
        rows: np.ndarray = labels == classes.index(label)
        if not rows.any():
            raise UserError(
                f"accept.metric = '{metric}': no item of the split has this label", "give [data] more items"
            )
        return rows
    return np.ones(len(labels), dtype=bool)


def spoken(metric: str) -> str:
    """A recipe's metric as a sentence says it."""
    return "macro f1" if metric == "macro_f1" else metric


def perfect_limit_points(n: int) -> float:
    """The upper limit of the drop when not one of `n` items is lost: no interval of theirs is narrower.

    It is also how far Wilson's lower limit stays below 100 % when all `n` are right: 100 z^2 / (n + z^2) both times.
    """
    return 100 * drop_interval(0, 0, n)[1]


@cache
def smallest_margin_points(n: int) -> float:
    """The smallest margin that a perfect copy keeps on `n` items: by the limit, and by the exact test to 0.05 points.

    Only a variant that has items right which its teacher has wrong could keep a smaller one.
    Of fewer than 52 items the exact test asks for more than the limit: of 20 for 16.89 points instead of 16.11.
    """
    limit = perfect_limit_points(n)
    if n >= _FEW:
        return limit
    points = max(limit, _exact_shortfall(n))
    while paired_p(0, 0, n, points / 100) > LEVEL:  # mostly once or twice
        points += 0.05
    return points


def _exact_shortfall(n: int) -> float:
    """How far the exact limit (Clopper & Pearson 1934) stays below 100 % when all `n` are right, in points."""
    return float(100 * (1 - LEVEL ** (1 / n)))


def check_margin(accept: Accept, n: int) -> None:
    """Raise UserError for what `n` test items of the metric can never show, whatever is trained."""
    margin, target, is_share = accept.max_drop_points, accept.target_percent, accept.metric != "macro_f1"
    if target is None:
        smallest = smallest_margin_points(n) if is_share else perfect_limit_points(n)
        if margin < smallest:
            raise UserError(
                f"accept.max_drop_points = {margin:g} contradicts a test split of {n} items: without a single item "
                f"lost, a drop of up to {smallest:.2f} points is still not ruled out at 97.5 %",
                f"allow at least {_up(smallest):.2f} points, or test on more items",
            )
        return
    short = max(perfect_limit_points(n), _exact_shortfall(n) if is_share else 0.0)
    if target - margin > 100 - short:
        raise UserError(
            f"accept.target_percent = {target:g} less max_drop_points = {margin:g} contradicts a test split of {n} "
            f"items: without a single error, the 97.5 % limit of the {accept.metric} is only {100 - short:.2f} %",
            f"lower the target, allow at least {_up(target - 100 + short):.2f} points, or test on more items",
        )


def _up(points: float) -> float:
    """Rounded up to what is printed, so that what a hint names is enough."""
    return math.ceil(100 * points) / 100


def _bootstrapped(drop: Callable[[np.ndarray], float], n: int, seed: int, target: float | None = None) -> Drop:
    """`drop`, a function of rows int64 [N], with its bootstrap interval; below a `target` it ends at 0 and 100 %."""
    points = drop(np.arange(n))
    low, high = bootstrap_drop(drop, n, seed)
    # Where hardly an item differs, or all are right, every resample says the same and the bootstrap collapses to false
    # certainty. No interval is narrower than the one that a share of the same n items has then.
    floor = perfect_limit_points(n)
    low, high = min(low, points - floor), max(high, points + floor)
    if target is not None:
        low, high = max(low, target - 100), min(high, target)
    return Drop(points, low, high, n, target=target)
