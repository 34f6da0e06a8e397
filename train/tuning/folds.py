"""Held-out parts of a small data set: stratified k-fold and leave-one-out.

N items.
"""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import LeaveOneOut

from serve.errors import UserError
from train.folds import rarest, stratified
from train.tuning.config import LEAVE_ONE_OUT

LEAVE_ONE_OUT_ITEMS = 500  # above it, leave-one-out would take days and tell what ten folds tell


def fold_rows(labels: np.ndarray, folds: int | str, seed: int, fits: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows to train on, rows held out) of each fold, int64; each of N rows is held out once.

    `fits` is how often the caller would go through all folds, for the refusal of a search that would never end.
    Raises UserError for leave-one-out above LEAVE_ONE_OUT_ITEMS, and for more folds than the rarest class has items.
    """
    total, fewest = len(labels), rarest(labels)
    if folds == LEAVE_ONE_OUT:
        if total > LEAVE_ONE_OUT_ITEMS:
            raise UserError(
                f"leave-one-out over {total:,} items would train {total * fits:,} models ({total:,} for each of "
                f"{fits:,} trials)",
                f"it is for {LEAVE_ONE_OUT_ITEMS} items at most: write folds = 5 or 10 under [tune]",
            )
        return list(LeaveOneOut().split(labels))
    if int(folds) > fewest:
        raise UserError(
            f"tune.folds = {folds}, but the rarest class has only {fewest} items in train and validation",
            f"write folds = {fewest} or less, or folds = 0 to judge on the validation split"
            if fewest > 1
            else "write folds = 0 to judge on the validation split",
        )
    return stratified(labels, int(folds), seed)
