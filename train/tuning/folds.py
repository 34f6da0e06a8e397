"""Held-out parts of a small data set: stratified k-fold and leave-one-out.

N items.
"""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import LeaveOneOut

from serve.errors import UserError
from train.checks import equal_items
from train.folds import rarest, stratified
from train.sources import Items
from train.tuning.config import LEAVE_ONE_OUT

Fold = tuple[np.ndarray, np.ndarray]  # rows to train on, rows held out

LEAVE_ONE_OUT_ITEMS = 500  # above it, leave-one-out would take days and tell what ten folds tell


def fold_rows(labels: np.ndarray, folds: int | str, seed: int, fits: int = 1) -> list[Fold]:
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


def kept_apart(folds: list[Fold], items: Items, classes: tuple[str, ...], duplicates: str) -> list[Fold]:
    """The folds, with no item to train on that equals one held out: it would be judged by an answer learned by heart.

    `duplicates` is [data.repair]'s: "refuse" raises UserError for such items, "drop" leaves them out of what is trained
    on, "keep" keeps them. Raises UserError where a class loses all that it could be learned from.
    """
    known = np.arange(len(items))  # which items are equal
    for rows in equal_items(items) if duplicates != "keep" else ():
        known[rows] = rows[0]
    apart = [(rest[~np.isin(known[rest], known[held])], held) for rest, held in folds]
    lost = [np.setdiff1d(before, after) for (before, _), (after, _) in zip(folds, apart, strict=True)]
    if duplicates == "refuse" and (torn := np.unique(np.concatenate(lost))).size:
        first = int(torn[0])
        other = next(int(row) for row in np.flatnonzero(known == known[first]) if row != first)
        raise UserError(
            f"{items.origins[first]} is also {items.origins[other]}: one fold would train on it and be judged by it "
            f"({len(torn)} such items in all)",
            'leave each in once, or write duplicates = "drop" under [data.repair], or tune.folds = 0',
        )
    for at, (rest, _) in enumerate(apart, start=1):
        if len(gone := np.flatnonzero(np.bincount(items.labels[rest], minlength=len(classes)) == 0)):
            raise UserError(
                f"without what fold {at} holds out as well, it has no item of class '{classes[gone[0]]}' to learn from",
                "give that class more items, or judge by validation: tune.folds = 0",
            )
    return apart
