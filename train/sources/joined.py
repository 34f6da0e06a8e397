"""Several splits of one source as one: to train on all of them, or to cut them otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from train.sources.base import Items, Origins


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
