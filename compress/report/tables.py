"""A table before it is HTML or Markdown: both templates draw these with one macro each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "good", "bad", "quiet"]


@dataclass(frozen=True)
class Column:
    title: str
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """`detail` is a second, quieter line. `heat` (0..1) shades the ground of a matrix cell, `hit` in a cool colour."""

    text: str
    detail: str = ""
    tone: Tone = ""
    heat: float = 0.0
    hit: bool = False

    @property
    def shade(self) -> str:
        """Opacity of the ground. Kept under one half, so that the figure on it stays legible."""
        heat = min(max(self.heat, 0.0), 1.0) if math.isfinite(self.heat) else 0.0
        return f"{0.46 * math.sqrt(heat):.2f}"  # the root lets rare confusions be seen beside the common ones


@dataclass(frozen=True)
class Row:
    """The first cell is the row's heading; `note` is a line of its own beneath the cells."""

    cells: tuple[Cell, ...]
    marks: tuple[str, ...] = ()
    note: Cell | None = None


@dataclass(frozen=True)
class Group:
    """Rows under a heading of their own; no heading where `title` is empty."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    caption: str
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    kind: str = ""  # a CSS class
    more: Table | None = None  # the whole, to be unfolded, where this shows only a part

    @property
    def rows(self) -> list[Row]:
        return [row for group in self.groups for row in group.rows]


def row(*cells: str | Cell, marks: Iterable[str] = ()) -> Row:
    """A row of plain texts and ready cells."""
    ready = tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells)
    return Row(ready, tuple(marks))


def table(caption: str, columns: Sequence[str | Column], rows: Iterable[Row], kind: str = "") -> Table:
    """An ungrouped table; a column given as text is numeric, but for the first."""
    return Table(caption, as_columns(columns), (Group("", tuple(rows)),), kind)


def as_columns(columns: Sequence[str | Column]) -> tuple[Column, ...]:
    """Columns of plain titles: the first is text, the others are numbers."""
    return tuple(
        column if isinstance(column, Column) else Column(column, numeric=at > 0) for at, column in enumerate(columns)
    )
