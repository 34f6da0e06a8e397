"""What every source gives: labelled items, and what is wrong with them.

N items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from serve.manifest import Task
from train.sources.problems import Problem

UNLABELLED = -1  # in the place of a label
_BLOCK = 65_536  # rows that are listed at a time


class Contents(BaseModel):
    """How a source's files and the columns of its contents are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text_column: str = "text"
    image_column: str = "image"
    encoding: str | None = None  # None: UTF-8, or what the byte-order mark says
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)  # None: found out among , ; tab |
    header: bool = True  # False: columns are named by position, "1", "2"


class Reading(Contents):
    """How a labelled source is read: the part of [data] that concerns columns, files and class names."""

    label_column: str = "label"
    classes: tuple[str, ...] | None = Field(default=None, min_length=2)  # None: sorted names, numbers numerically


def label_column(reading: Contents) -> str | None:
    """The column of labels; None where none are read."""
    return reading.label_column if isinstance(reading, Reading) else None


class Picked(Sequence[bytes]):
    """Some rows of another sequence, read when they are asked for."""

    def __init__(self, content: Sequence[bytes], rows: np.ndarray) -> None:
        self._content, self._rows = content, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self._content[int(row)] for row in self._rows[at]]
        return self._content[int(self._rows[at])]

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._rows), _BLOCK):
            yield from map(self._content.__getitem__, self._rows[start : start + _BLOCK].tolist())


@dataclass(frozen=True)
class Origins(Sequence[str]):
    """Where each of N items came from: `FILE`, or `FILE:LINE` as an editor counts, put together when asked for."""

    files: Sequence[str]
    file: np.ndarray  # int [N], into `files`
    line: np.ndarray | None = None  # int [N], 1-based; None where an item is a file of its own

    def __len__(self) -> int:
        return len(self.file)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[row] for row in range(*at.indices(len(self)))]
        name = self.files[int(self.file[at])]
        return name if self.line is None else f"{name}:{self.line[at]}"

    def take(self, rows: np.ndarray) -> Origins:
        return Origins(self.files, self.file[rows], None if self.line is None else self.line[rows])


def numbered(what: str, count: int) -> Origins:
    """Origins of items that are in no file of their own: "digits:1", "digits:2"."""
    return Origins((what,), np.zeros(count, dtype=np.int8), np.arange(1, count + 1, dtype=np.int32))


@dataclass(frozen=True)
class Items:
    """N items: encoded bytes, int64 [N] indices into the source's class names, and where each came from.

    Items without a label have UNLABELLED in its place.
    `content` may read from disk when it is asked for an item; it takes an int or a slice, and a slice is read at once.
    """

    content: Sequence[bytes]
    labels: np.ndarray
    origins: Origins = field(default=None)  # type: ignore[assignment]  # filled in below

    def __post_init__(self) -> None:
        if self.origins is None:
            object.__setattr__(self, "origins", numbered("item", len(self.labels)))

    def __len__(self) -> int:
        return len(self.content)

    def take(self, rows: np.ndarray) -> Items:
        """These rows, in this order; what was not in memory stays where it is."""
        content: Sequence[bytes]
        if isinstance(self.content, list):
            content = [self.content[row] for row in rows]
        else:
            content = Picked(self.content, rows)
        return Items(content, self.labels[rows], self.origins.take(rows))


@dataclass(frozen=True)
class Source:
    """What a source gives: class names and items, the splits that it has of its own, and the problems that were met.

    Rows with a problem are not among the items.
    """

    task: Task
    classes: tuple[str, ...]
    items: Items
    test: Items | None = None
    validation: Items | None = None
    problems: tuple[Problem, ...] = ()
