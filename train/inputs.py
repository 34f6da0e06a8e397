"""A split as model input: prepared by the one implementation that serving uses, gathered by rows.

N items of the split or of a batch, L tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from serve.preparer import Preparer
from train.sources import Items


class Inputs(Protocol):
    """A prepared split. `gather` may decode on demand, so it is asked for batches, not for everything."""

    @property
    def labels(self) -> np.ndarray:
        """int64 [N]."""

    def __len__(self) -> int: ...

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """These rows as one batch: uint8 [N, H, W, C] or int64 [N, L]."""

    @property
    def lengths(self) -> np.ndarray | None:
        """Tokens of each item, int64 [N]; None where all are alike, as images are."""


@dataclass(frozen=True)
class ImageInputs:
    """Images in memory: uint8 [N, H, W, C]."""

    images: np.ndarray
    labels: np.ndarray
    lengths: None = None

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return self.images[rows]


class TextInputs:
    """Texts in memory, as ids: each int64 [1, its own length], padded when a batch is gathered."""

    def __init__(self, items: Items, preparer: Preparer) -> None:
        self.labels = items.labels
        self._preparer = preparer
        self._ids = [preparer.prepare([item]) for item in items.content]
        self.lengths = np.array([ids.shape[1] for ids in self._ids])

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return self._preparer.join([self._ids[row] for row in rows])


def prepare_inputs(items: Items, preparer: Preparer) -> Inputs:
    """The split as `preparer` prepares it."""
    if preparer.input == "images":
        return ImageInputs(preparer.prepare(items.content), items.labels)
    return TextInputs(items, preparer)


class PreparedSplits:
    """Keeps what was prepared, since the models of a run mostly see the same images."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Inputs] = {}

    def get(self, split: str, items: Items, preparer: Preparer) -> Inputs:
        """The split called `split` as `preparer` prepares it, from memory if it can be."""
        key = (split, preparer.fingerprint())
        if key not in self._known:
            self._known[key] = prepare_inputs(items, preparer)
        return self._known[key]
