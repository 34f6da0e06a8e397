"""The share of each of several processes in every batch: together they see what one process would."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Sampler

from train.views import EpochSampler


class SharedBatches(Sampler[list[int]]):
    """The rows of one process in each batch of `batch_size`, which is what all `size` processes see together.

    A last batch that is smaller is shared too. Where it has fewer items than there are processes, the others look at
    its first item, which must not count there: its row r is given as -1 - r, since all have to take part in an update.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, rank: int, size: int) -> None:
        self.sampler, self._batch_size, self._rank, self._size = sampler, batch_size, rank, size

    def set_epoch(self, epoch: int) -> None:
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self.sampler) // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rows = list(self.sampler)
        for at in range(0, len(rows), self._batch_size):
            batch = rows[at : at + self._batch_size]
            share = -(-len(batch) // self._size)
            yield batch[self._rank * share : (self._rank + 1) * share] or [-1 - batch[0]]


class SharedLoader(DataLoader[Any]):
    """A loader of such batches, which passes on its epoch: Trainer looks for a sampler of single items."""

    def set_epoch(self, epoch: int) -> None:
        assert isinstance(self.batch_sampler, SharedBatches)
        self.batch_sampler.set_epoch(epoch)
