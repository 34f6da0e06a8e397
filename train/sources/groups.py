"""`[data] group`: another column of the labelled rows, by which a report looks for groups that lose more than others.

Read after the items, by file and line, for those items alone: nothing of it reaches a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from serve.errors import UserError
from train.sources.base import Contents, Items
from train.sources.csv_files import csv_column
from train.sources.jsonl_files import jsonl_column
from train.sources.parquet_files import parquet_column
from train.sources.paths import existing

NONE = "(none)"  # the group of rows whose cell is empty
_READERS: dict[str, Callable[[Path, str, str, Contents], Iterator[tuple[int, str]]]] = {
    "csv": csv_column,
    "jsonl": jsonl_column,
    "parquet": parquet_column,
}


def read_groups(source: str, reading: Contents, column: str, items: Items) -> tuple[str, ...]:
    """The cell of `column` in the row of each of N items. Raises UserError where there is no such column."""
    kind, _, where = source.partition(":")
    if kind not in _READERS:
        raise UserError(
            f"data.group = '{column}', but '{source}' has no columns", f"groups are read from {', '.join(_READERS)}"
        )
    root, origins = existing(where, kind), items.origins
    assert origins.line is not None, "rows of files have lines"
    groups = [NONE] * len(items)
    for number in np.unique(origins.file).tolist():
        name = origins.files[number]
        rows = np.flatnonzero(origins.file == number).tolist()
        wanted = {int(origins.line[row]): row for row in rows}
        for line, cell in _READERS[kind](root if root.is_file() else root / name, name, column, reading):
            if line in wanted:
                groups[wanted[line]] = cell.strip() or NONE
    return tuple(groups)
