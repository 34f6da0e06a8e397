"""Held-out parts of a small data set: stratified k-fold and leave-one-out.

N items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from sklearn.model_selection import LeaveOneOut, StratifiedKFold

from serve.errors import UserError
from train.sources import Items
from train.sources.base import Origins
from train.tuning.config import LEAVE_ONE_OUT

LEAVE_ONE_OUT_ITEMS = 500  # above it, leave-one-out would take days and tell what ten folds tell


class Joined(Sequence[bytes]):
    """Several sequences as one, read when they are asked for."""

    def __init__(self, parts: Sequence[Sequence[bytes]]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self[row] for row in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        part = int(np.searchsorted(self._ends, at, side="right"))
        return self._parts[part][at - int(self._ends[part]) + len(self._parts[part])]

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            yield from part


def join(parts: Sequence[Items]) -> Items:
    """The items of several splits of one source as one, in their order."""
    content = Joined([part.content for part in parts])
    return Items(content, np.concatenate([part.labels for part in parts]), _join_origins([p.origins for p in parts]))


def _join_origins(parts: Sequence[Origins]) -> Origins:
    starts = np.cumsum([0, *(len(part.files) for part in parts)])
    file = np.concatenate([part.file.astype(np.int64) + start for part, start in zip(parts, starts, strict=False)])
    lines = [part.line if part.line is not None else np.zeros(len(part), dtype=np.int64) for part in parts]
    line = None if all(part.line is None for part in parts) else np.concatenate(lines)
    return Origins([name for part in parts for name in part.files], file, line)


def fold_rows(labels: np.ndarray, folds: int | str, seed: int, fits: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows to train on, rows held out) of each fold, int64; each of N rows is held out once.

    `fits` is how often the caller would go through all folds, for the refusal of a search that would never end.
    Raises UserError for leave-one-out above LEAVE_ONE_OUT_ITEMS, and for more folds than the rarest class has items.
    """
    total, rarest = len(labels), int(min(np.unique(labels, return_counts=True)[1]))
    if folds == LEAVE_ONE_OUT:
        if total > LEAVE_ONE_OUT_ITEMS:
            raise UserError(
                f"leave-one-out over {total:,} items would train {total * fits:,} models ({total:,} for each of "
                f"{fits:,} trials)",
                f"it is for {LEAVE_ONE_OUT_ITEMS} items at most: write folds = 5 or 10 under [tune]",
            )
        return list(LeaveOneOut().split(labels))
    if int(folds) > rarest:
        raise UserError(
            f"tune.folds = {folds}, but the rarest class has only {rarest} items in train and validation",
            f"write folds = {rarest} or less, or folds = 0 to judge on the validation split"
            if rarest > 1
            else "write folds = 0 to judge on the validation split",
        )
    return list(StratifiedKFold(int(folds), shuffle=True, random_state=seed).split(labels, labels))
