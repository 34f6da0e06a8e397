"""Worst groups: does a variant lose more where a column of the data says that the items belong together?

N items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.evidence.drops import share_drop, smallest_margin_points
from compress.evidence.noninferiority import LEVEL, paired_p
from compress.report import schema

LEAST = 30  # items of a group, below which no interval of a drop is of any use


def group_changes(
    ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray, groups: Sequence[str], margin: float | None
) -> list[schema.GroupChange]:
    """The drop in accuracy of each group, paired item by item: int64 [N] predicted each, the greatest drop first.

    Each interval is one at 95 %. All judged groups must keep the `margin`, each by its own upper limit: that all pass
    where one should not is no likelier than that this one does, so nothing is to be corrected (Berger 1982,
    Technometrics 24:295). A group in which not even a perfect copy could keep it is not judged, nor one below LEAST.
    """
    names = np.asarray(groups, dtype=object)
    changes = []
    for name in sorted(set(groups)):
        rows = names == name
        drop = share_drop(ours[rows] == labels[rows], theirs[rows] == labels[rows])
        assert drop.lost is not None
        assert drop.gained is not None
        changes.append(
            schema.GroupChange(
                group=name,
                n=drop.n,
                accuracy=float((ours[rows] == labels[rows]).mean()),
                baseline_accuracy=float((theirs[rows] == labels[rows]).mean()),
                lost=drop.lost,
                gained=drop.gained,
                drop_points=drop.points,
                drop_points_ci95=(drop.low, drop.high),
                judged=drop.n >= LEAST and (margin is None or smallest_margin_points(drop.n) <= margin),
            )
        )
    return sorted(changes, key=lambda change: (not change.judged, -change.drop_points, change.group))


def group_problems(changes: Sequence[schema.GroupChange], margin: float | None) -> list[str]:
    """Which judged groups could have lost more than the margin, the worst of them named.

    As in a verdict, a limit within the margin must pass the exact test besides: groups are small, and the limit alone
    lets a drop of the margin pass in up to 2.75 % of all splits of 100 items.
    """
    if margin is None:
        return []
    judged = [change for change in changes if change.judged]
    over = [change for change in judged if change.drop_points_ci95[1] > margin]
    if not over:
        return [problem for change in judged for problem in _exact_problem(change, margin)]
    worst = max(over, key=lambda change: change.drop_points_ci95[1])
    more = f" and {len(over) - 1} more" if len(over) > 1 else ""
    limit = f"{worst.drop_points_ci95[1]:.2f} points (97.5 % limit, {worst.n:,} items)"
    return [f"the drop in group '{worst.group}' could be up to {limit}, over {margin:g}{more}"]


def _exact_problem(change: schema.GroupChange, margin: float) -> list[str]:
    p = paired_p(change.lost, change.gained, change.n, margin / 100)
    if p <= LEVEL:
        return []
    within = f"the limit of the drop in group '{change.group}' ({change.n:,} items) is within {margin:g}"
    return [f"{within}, but so close that the exact test does not follow: p = {p:.4f}, over {LEVEL:g}"]
