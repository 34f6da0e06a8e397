"""Drawing splits, stratified by class: every class that has enough items is in every split.

N items, S splits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.model_selection import train_test_split

from serve.errors import UserError
from train.sources import Items

_FEW = 2.0  # a class of which a split would get fewer, on average, is given its place there beforehand


def draw_splits(items: Items, counts: Mapping[str, int], classes: int, seed: int) -> dict[str, Items]:
    """`counts` items for each named split, and the rest as "train". The same seed gives the same splits.

    Raises UserError if a split would be smaller than the number of classes.
    """
    total = len(items)
    _check_counts(counts, total, classes)
    rows = _reserve(items.labels, {**counts, "train": total - sum(counts.values())}, seed)
    rest = np.setdiff1d(np.arange(total), np.concatenate(list(rows.values())))
    for name, count in counts.items():
        rest, drawn = _draw(rest, items.labels, count - len(rows[name]), seed)
        rows[name] = np.concatenate([rows[name], drawn])
    rows["train"] = np.concatenate([rows["train"], rest])
    return {name: items.take(np.sort(taken)) for name, taken in rows.items()}


def draw_sample(items: Items, count: int, classes: int, seed: int, name: str) -> Items:
    """`count` of the items; all of them if that is what is asked for. Raises UserError if there are not so many."""
    if count == len(items):
        return items
    if count > len(items):
        raise UserError(
            f"data.{name} asks for {count} items, but there are {len(items)}", f"ask for at most {len(items)}"
        )
    if count < classes:
        raise _too_small(name, count, len(items), classes, f"{name} = {count}")
    return items.take(np.sort(_draw(np.arange(len(items)), items.labels, count, seed)[1]))


def _reserve(labels: np.ndarray, counts: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """For each split one item of each class that chance might leave it without; rows int64 [at most classes].

    A class with fewer items than there are splits goes to train first, then to test.
    """
    share = min(counts.values()) / len(labels)
    sizes = np.bincount(labels)
    small = np.flatnonzero((sizes > 0) & (sizes * share < _FEW))
    shuffled = np.random.default_rng(seed).permutation(len(labels)) if len(small) else np.zeros(0, dtype=np.int64)
    rows: dict[str, list[int]] = {name: [] for name in counts}
    for label in small:
        mine = shuffled[labels[shuffled] == label]
        for name, row in zip(reversed(list(counts)), mine, strict=False):
            rows[name].append(int(row))
    return {name: np.array(taken, dtype=np.int64) for name, taken in rows.items()}


def _draw(rest: np.ndarray, labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(what stays, what was drawn), as rows. Stratified, unless there are too few items to be so."""
    if count in (0, len(rest)):
        return (rest, rest[:0]) if count == 0 else (rest[:0], rest)
    sizes = np.bincount(labels[rest])
    classes = np.count_nonzero(sizes)
    possible = min(count, len(rest) - count) >= classes and sizes[sizes > 0].min() > 1
    stratify = labels[rest] if possible else None
    stays, drawn = train_test_split(rest, test_size=count, stratify=stratify, random_state=seed)
    return stays, drawn


def _check_counts(counts: Mapping[str, int], total: int, classes: int) -> None:
    left = total - sum(counts.values())
    for name, count in {**counts, "train": left}.items():
        if count < classes:
            asked = ", ".join(f"{split} = {size}" for split, size in counts.items())
            raise _too_small(name, max(count, 0), total, classes, asked)


def _too_small(name: str, count: int, total: int, classes: int, asked: str) -> UserError:
    return UserError(
        f"the {name} split would hold {count} of {total} items, fewer than the {classes} classes",
        f"[data] asks for {asked}; ask so that every split gets {classes} or more",
    )
