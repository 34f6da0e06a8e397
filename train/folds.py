"""Cross-validation: parts of a data set, stratified by class, of which each takes the place of test once.

N items.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from sklearn.model_selection import StratifiedKFold

from serve.errors import SettingError, UserError
from train.sources import Items
from train.sources.joined import join
from train.splits import draw_splits

POOL = ("train", "calibration", "validation")  # what is cut into folds; a recipe's test split never is
_FOLD = re.compile(r"([1-9]\d*)/([1-9]\d*)")


def read_fold(text: str) -> tuple[int, int]:
    """(which, of how many) of "2/5", the second of five. Raises SettingError."""
    found = _FOLD.fullmatch(text)
    which, many = (int(part) for part in found.groups()) if found else (0, 0)
    if many < 2 or which > many:
        raise SettingError(
            f"fold = '{text}' is no part of a whole", "expected for example fold = '2/5', the second of five parts"
        )
    return which, many


def stratified(labels: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(the rest, what is held out) of each fold, as rows int64; each of N rows is held out once."""
    return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels))


def rarest(labels: np.ndarray) -> int:
    """How many items the rarest class has: there can be no more folds."""
    return int(min(np.unique(labels, return_counts=True)[1]))


def refold(splits: Mapping[str, Items], fold: str, classes: int, seed: int) -> dict[str, Items]:
    """Other splits of the items outside of test: the fold as test, and the rest cut in the shares that it had.

    Raises UserError where the rarest class has too few items.
    """
    which, many = read_fold(fold)
    pool = join([splits[name] for name in POOL])
    if many > (fewest := rarest(pool.labels)):
        raise UserError(
            f"{many} folds, but the rarest class has only {fewest} items outside of test",
            f"ask for {fewest} folds at most" if fewest > 1 else "give that class more items",
        )
    rest, held_out = stratified(pool.labels, many, seed)[which - 1]
    share = len(rest) / len(pool)
    counts = {name: max(round(share * len(splits[name])), classes) for name in POOL if name != "train"}
    return {**draw_splits(pool.take(rest), counts, classes, seed), "test": pool.take(held_out)}
