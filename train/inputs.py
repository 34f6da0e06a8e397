"""A split as model input: prepared by the one implementation that serving uses, gathered by rows.

N items of the split or of a batch, L tokens.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch.utils.data import get_worker_info

from serve.errors import InputError, UserError
from serve.preparer import Preparer
from train.sources import Items

MEMORY_BYTES = 2**30  # the largest split of images that is kept in memory
_CHUNK = 64
_LARGE_FILE_BYTES = 10_000
_PREFETCH = 2  # batches that each of a loader's workers makes in advance; torch's default


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

    def workers(self, batch_size: int) -> int:
        """Processes that a loader of such batches should have; 0 where to gather is only to copy."""

    def digest(self) -> bytes:
        """Names what `gather` gives for every row: equal only where all of it is."""


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

    def workers(self, batch_size: int) -> int:
        return 0

    def digest(self) -> bytes:
        return _digest_of_array(self.images)


class TextInputs:
    """Texts in memory, as ids: each int64 [1, its own length], padded when a batch is gathered."""

    def __init__(self, items: Items, preparer: Preparer) -> None:
        self.labels = items.labels
        self._items, self._preparer = items, preparer
        self._ids = [_prepare_some(items, np.array([row]), preparer) for row in range(len(items))]
        self.lengths = np.array([ids.shape[1] for ids in self._ids])

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return self._preparer.join([self._ids[row] for row in rows])

    def texts(self, rows: np.ndarray) -> list[str]:
        """These rows as they were written, to make other texts of."""
        return [self._items.content[int(row)].decode() for row in rows]

    def tokenize(self, texts: list[str]) -> np.ndarray:
        """Texts that are made from the split's own, as one batch of ids int64 [N, L]."""
        return self._preparer.prepare([text.encode() for text in texts])

    def fingerprint(self) -> str:
        """Equal for splits that are prepared in the same way."""
        return self._preparer.fingerprint()

    def workers(self, batch_size: int) -> int:
        return 0

    def digest(self) -> bytes:
        digest = hashlib.sha256(f"{self.fingerprint()} {self.lengths.tolist()}".encode())
        for ids in self._ids:
            digest.update(np.ascontiguousarray(ids).data)
        return digest.digest()


class LazyImages:
    """Images too many for memory: decoded when a batch is gathered, to the same pixels each time."""

    lengths = None

    def __init__(self, items: Items, preparer: Preparer) -> None:
        self.labels = items.labels
        self._items, self._preparer = items, preparer

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        # A loader's worker is one of several processes already; threads are for whoever gathers without a loader.
        threads = 1 if get_worker_info() is not None else count_threads()
        return _prepare(self._items, rows, self._preparer, threads)

    def workers(self, batch_size: int) -> int:
        """One for each processor, but none where /dev/shm, through which they answer, is too small (Docker: 64 MB)."""
        workers = count_threads()
        batch_bytes = batch_size * self._preparer.prepare([self._preparer.sample()]).nbytes
        try:
            free = shutil.disk_usage("/dev/shm").free
        except OSError:  # not on Linux, and so without such a limit
            return workers
        return workers if free > 2 * workers * _PREFETCH * batch_bytes else 0

    def digest(self) -> bytes:
        digest = hashlib.sha256(self._preparer.fingerprint().encode())
        for content in self._items.content:
            digest.update(hashlib.sha256(content).digest())
        return digest.digest()


def prepare_inputs(items: Items, preparer: Preparer, budget_bytes: int = MEMORY_BYTES) -> Inputs:
    """The split as `preparer` prepares it: in memory, or images from disk or as files where they would take more.

    Raises UserError that names the first item which cannot be read.
    """
    if preparer.input != "images":
        return TextInputs(items, preparer)
    shape = preparer.prepare([preparer.sample()]).shape[1:]
    if len(items) * math.prod(shape) > budget_bytes:
        return LazyImages(items, preparer)
    # Threads win where decoding outweighs what Python does around it: not for the files of MNIST or CIFAR-10.
    large = sum(map(len, items.content[:_CHUNK])) > min(len(items), _CHUNK) * _LARGE_FILE_BYTES
    return ImageInputs(_prepare(items, np.arange(len(items)), preparer, count_threads() if large else 1), items.labels)


def _prepare(items: Items, rows: np.ndarray, preparer: Preparer, threads: int) -> np.ndarray:
    """These images, uint8 [N, H, W, C], decoded in `threads` threads: Pillow runs beside Python while it decodes."""
    chunk = min(_CHUNK, -(-len(rows) // threads))
    batch = np.empty((len(rows), *preparer.prepare([preparer.sample()]).shape[1:]), dtype=np.uint8)

    def work(at: int) -> None:
        batch[at : at + chunk] = _prepare_some(items, rows[at : at + chunk], preparer)

    starts = range(0, len(rows), max(chunk, 1))
    if threads == 1:
        for at in starts:
            work(at)
        return batch
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, starts))  # in order, so that the first image that cannot be read is the one named
    return batch


def _prepare_some(items: Items, rows: np.ndarray, preparer: Preparer) -> np.ndarray:
    content = [items.content[int(row)] for row in rows]
    try:
        return preparer.prepare(content)
    except InputError:
        for row, item in zip(rows, content, strict=True):
            try:
                preparer.prepare([item])
            except InputError as error:
                raise unreadable(items, int(row), error) from None
        raise


def _digest_of_array(array: np.ndarray) -> bytes:
    digest = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def unreadable(items: Items, row: int, error: InputError) -> UserError:
    """What to tell of an item that cannot be prepared."""
    hint = 'replace it, or write unreadable = "drop" under [data.repair]; `limbeck data check` finds all of them'
    return UserError(f"{items.origins[row]}: {error.message}", hint)


def count_threads() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
