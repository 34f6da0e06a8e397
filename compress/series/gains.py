"""How much better several seeds of one model are than those of another, over the same test items.

S seeds, N test items, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.stats import norm

from compress.evidence.drops import metric_rows, perfect_limit_points
from compress.evidence.statistics import CONFIDENCE, bootstrap_drop
from train.metrics import macro_f1

_Z = float(norm.ppf(0.5 + CONFIDENCE / 2))


class Difference(BaseModel):
    """How many points of a metric one model has more than another, mean of the seeds.

    `ci95` is over the test items, each with its mean over these very seeds; `by_seed` shows what seeds do to it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    than: str
    points: float
    ci95: tuple[float, float]
    by_seed: tuple[float, ...]


def scored(metric: str, predicted: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> tuple[float, ...]:
    """The recipe's metric in percent, of each seed: `predicted` int64 [S, N], `labels` int64 [N]."""
    if metric == "macro_f1":
        return tuple(100 * macro_f1(seed, labels, len(classes)) for seed in predicted)
    rows = metric_rows(metric, labels, tuple(classes))
    return tuple(100 * float((seed[rows] == labels[rows]).mean()) for seed in predicted)


def gain(
    metric: str, ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray, classes: Sequence[str], than: str
) -> Difference:
    """What `ours` has more of the metric than `theirs`: predictions int64 [S, N], `labels` int64 [N]."""
    if metric == "macro_f1":
        return _gain_in_f1(ours, theirs, labels, len(classes), than)
    rows = metric_rows(metric, labels, tuple(classes))
    return difference(ours[:, rows] == labels[rows], theirs[:, rows] == labels[rows], than)


def difference(ours: np.ndarray, theirs: np.ndarray, than: str) -> Difference:
    """What `ours` has right more than `theirs`: both bool [S, N].

    Where hardly an item differs the deviation says nothing; no interval is narrower than that of one seed without any.
    """
    more = ours.astype(float) - theirs
    items = more.mean(axis=0)
    half = _Z * float(items.std(ddof=1)) / len(items) ** 0.5 if len(items) > 1 else 0.0
    points = 100 * float(items.mean())
    return _widened(points, points - 100 * half, points + 100 * half, len(items), 100 * more.mean(axis=1), than)


def _gain_in_f1(ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray, k: int, than: str) -> Difference:
    """Macro F1 is no mean over the items: the bootstrap draws them anew, the same for all seeds of both models."""

    def by_seed(rows: np.ndarray) -> np.ndarray:
        truth = labels[rows]
        pairs = zip(ours[:, rows], theirs[:, rows], strict=True)
        return np.array([100 * (macro_f1(one, truth, k) - macro_f1(other, truth, k)) for one, other in pairs])

    seeds = by_seed(np.arange(len(labels)))
    low, high = bootstrap_drop(lambda rows: float(by_seed(rows).mean()), len(labels), seed=0)
    return _widened(float(seeds.mean()), low, high, len(labels), seeds, than)


def _widened(points: float, low: float, high: float, n: int, by_seed: np.ndarray, than: str) -> Difference:
    floor = perfect_limit_points(n)
    return Difference(
        than=than,
        points=round(points, 3),
        ci95=(round(max(min(low, points - floor), -100), 3), round(min(max(high, points + floor), 100), 3)),
        by_seed=tuple(round(float(seed), 3) for seed in by_seed),
    )
