"""How many connections each worker holds, in memory that the workers of a server share."""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from bentoml import server_context

ENV = "LIMBECK_BOARD"
_SLOT = struct.Struct("<dq")  # when it was written (seconds of the monotonic clock, 0: not in use), connections
_FRESH_S = 1.0  # what is older was written by a worker that is dead, or too busy to take more


class Board:
    """One slot for each worker, which alone writes it. A slot is 16 bytes, so no reader minds a torn write for long."""

    def __init__(self, file: Path, slot: int) -> None:
        """`slot` counts from 0. Raises OSError, or ValueError for a slot that is not there."""
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 0)
        if not 0 <= slot < len(self._memory) // _SLOT.size:
            raise ValueError(f"{file} has no slot {slot}")
        self._slot = slot

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Board | None:
        """This worker's view of the board that LIMBECK_BOARD names; None where there is none, or no other worker."""
        if not environ.get(ENV) or server_context.worker_index is None:
            return None
        return cls(Path(environ[ENV]), server_context.worker_index - 1)

    @staticmethod
    def create(file: Path, workers: int) -> None:
        """An empty board. The supervisor numbers workers from 1 to twice their count, while some are replaced."""
        file.write_bytes(bytes(2 * workers * _SLOT.size))

    def surplus(self, held: int) -> int:
        """Say that this worker holds `held` connections. Returns how many of them are above its share.

        The share is the mean of all workers that live, rounded up, so that one connection more than another has is
        never let go.
        """
        now = time.monotonic()
        _SLOT.pack_into(self._memory, self._slot * _SLOT.size, now, held)
        counts = [count for written, count in _SLOT.iter_unpack(self._memory[:]) if now - written < _FRESH_S]
        share = -(-sum(counts) // len(counts))
        return max(0, held - share)

    def leave(self) -> None:
        """Take no further part: the others count without this worker."""
        _SLOT.pack_into(self._memory, self._slot * _SLOT.size, 0.0, 0)
