"""Where labelled items come from. A source is `NAME` or `NAME:WHERE` in a recipe's [data] table.

Items are always the bytes that a request would carry: image files, or UTF-8 text.
"""

from __future__ import annotations

from collections.abc import Callable

from serve.errors import UserError, did_you_mean
from train.sources.base import Items as Items
from train.sources.base import Origins as Origins
from train.sources.base import Reading as Reading
from train.sources.base import Source as Source
from train.sources.csv_files import read_csv
from train.sources.embedded import read_digits, read_mnist
from train.sources.paths import expand as expand

_SOURCES: dict[str, Callable[[str, Reading], Source]] = {
    "digits": read_digits,
    "mnist": read_mnist,
    "csv": read_csv,
}


def load_source(source: str, reading: Reading | None = None) -> Source:
    """Read the named source. Raises UserError for an unknown name or data that cannot be read at all.

    What is wrong with single items is in the source's `problems`.
    """
    name, _, where = source.partition(":")
    if name not in _SOURCES:
        raise UserError(f"unknown data source '{name}' in data.source = '{source}'", did_you_mean(name, _SOURCES))
    return _SOURCES[name](where, reading or Reading())
