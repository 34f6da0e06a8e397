"""The training split as batches: whole index lists in, whole tensors out, no per-item Python on the hot path."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from train.augment import AugmentConfig, augment

Batch = dict[str, torch.Tensor]  # images uint8 [N, H, W, C], labels int64 [N]


class View(Dataset[Batch]):
    """Prepared images and labels, seen through an augmentation (none for evaluation).

    torch's loader calls `__getitems__` with the indices of a batch, so items are gathered by one numpy take.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, augmentation: AugmentConfig, seed: int) -> None:
        self.images, self.labels = images, labels
        self.augmentation, self.seed = augmentation, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> Batch:
        rows = np.asarray(indices)
        images = augment(self.images[rows], self.augmentation, self.seed, self.epoch, rows)
        return {"images": torch.from_numpy(images), "labels": torch.from_numpy(self.labels[rows])}


class EpochSampler(Sampler[int]):
    """A shuffle that depends on (seed, epoch) alone, so that a resumed run sees the same order.

    The loader tells a sampler its epoch before it draws from it; the view's augmentation follows.
    """

    def __init__(self, view: View, seed: int) -> None:
        self.view, self.seed = view, seed

    def set_epoch(self, epoch: int) -> None:
        self.view.epoch = epoch

    def __len__(self) -> int:
        return len(self.view)

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.view.epoch)).permutation(len(self.view))
        return iter(order.tolist())


def as_batch(gathered: Batch) -> Batch:
    """The loader's collate function: `__getitems__` has already made the batch."""
    return gathered
