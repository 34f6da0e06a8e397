"""The drop of the recipe's metric against the baseline, paired item by item, in points (1 point is 0.01)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compress.statistics import bootstrap_drop, drop_interval
from serve.errors import UserError, did_you_mean
from train.metrics import macro_f1


@dataclass(frozen=True)
class Drop:
    """`points` is baseline minus variant: positive is a loss. `low`, `high` are its 95 % limits."""

    points: float
    low: float
    high: float
    n: int
    lost: int | None = None  # discordant items, where the metric is a share of items
    gained: int | None = None


def measure_drop(
    metric: str, scores: np.ndarray, baseline: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], seed: int
) -> Drop:
    """Drop of `metric` from `baseline` scores to `scores`, both float32 [N, K], on the same items."""
    ours, theirs = scores.argmax(axis=1), baseline.argmax(axis=1)
    if metric == "macro_f1":
        return _macro_f1_drop(ours, theirs, labels, len(classes), seed)
    rows = metric_rows(metric, labels, classes)
    return share_drop(ours[rows] == labels[rows], theirs[rows] == labels[rows])


def share_drop(ours_right: np.ndarray, theirs_right: np.ndarray) -> Drop:
    """Drop of the share of right answers, bool [N] each, with a score interval from the discordant items."""
    n = len(ours_right)
    lost, gained = int((theirs_right & ~ours_right).sum()), int((ours_right & ~theirs_right).sum())
    low, high = drop_interval(lost, gained, n)
    return Drop(100 * (lost - gained) / n, 100 * low, 100 * high, n, lost, gained)


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


def smallest_margin_points(n: int) -> float:
    """The upper limit of the drop when not one of `n` items is lost: no smaller margin can ever be met."""
    return 100 * drop_interval(0, 0, n)[1]


def _macro_f1_drop(ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> Drop:
    def drop(rows: np.ndarray) -> float:
        return 100 * (macro_f1(theirs[rows], labels[rows], classes) - macro_f1(ours[rows], labels[rows], classes))

    points = drop(np.arange(len(labels)))
    low, high = bootstrap_drop(drop, len(labels), seed)
    # Where hardly an item differs, every resample says the same and the bootstrap collapses to false certainty.
    # No interval is narrower than the one that a share of the same n items has when no item differs.
    floor = smallest_margin_points(len(labels))
    return Drop(points, min(low, points - floor), max(high, points + floor), len(labels))
