"""Items too many for memory: kept in memory while they are few, in a nameless temporary file once they are not."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Sequence
from typing import IO, overload

import numpy as np

from serve.errors import UserError

IN_MEMORY_BYTES = 64 * 1024 * 1024


class Spool(Sequence[bytes]):
    """Append items, then `close`, then read them in any order and from any thread.

    The file has no name, so nothing is left of it however the process ends.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._size = 0
        self._ends = array("q")
        self._file: IO[bytes] | None = None
        self._starts = np.zeros(0, dtype=np.int64)

    def append(self, item: bytes) -> None:
        self._pending += item
        self._size += len(item)
        self._ends.append(self._size)
        if len(self._pending) > IN_MEMORY_BYTES:
            self._flush()

    def close(self) -> Spool:
        """No more items will come."""
        if self._file is not None:
            self._flush()
        return self

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self[row] for row in range(*at.indices(len(self)))]
        row = range(len(self))[at]
        start, end = self._ends[row - 1] if row else 0, self._ends[row]
        if self._file is None:
            return bytes(self._pending[start:end])
        return os.pread(self._file.fileno(), end - start, start)

    def _flush(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="limbeck-", buffering=0)  # noqa: SIM115  # lives as long as this
            rest, place = memoryview(self._pending), self._size - len(self._pending)
            while rest:  # a disk that is nearly full takes a part first, and only then says that it is full
                written = os.pwrite(self._file.fileno(), rest, place)
                rest, place = rest[written:], place + written
        except OSError as error:
            raise UserError(
                f"no room for the data in {tempfile.gettempdir()}: {error.strerror}",
                "set TMPDIR to a folder on a disk with room for all of the data",
            ) from None
        self._pending = bytearray()
