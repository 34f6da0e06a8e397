"""Where labelled items come from. A source is `NAME` or `NAME:WHERE` in a recipe's [data] table.

Items are always the bytes that a request would carry: image files, or UTF-8 text.

digits                     scikit-learn's 1,797 digits
mnist:DIR                  the IDX files of MNIST
imagefolder:DIR            DIR/train/CLASS/*.jpg with validation and test beside it, or DIR/CLASS/*.jpg to be split
csv:FILE, csv:DIR          a table of texts to be split, or a folder with train.csv, validation.csv, test.csv
jsonl:..., parquet:...     the same; Parquet also holds images
hf:ID-OR-PATH              a data set of the Hugging Face hub, or its folder
"""

from __future__ import annotations

from collections.abc import Callable

from serve.errors import UserError, did_you_mean
from serve.manifest import Task
from train.sources.base import Items as Items
from train.sources.base import Origins as Origins
from train.sources.base import Reading as Reading
from train.sources.base import Source as Source
from train.sources.csv_files import read_csv
from train.sources.embedded import read_digits, read_mnist
from train.sources.guess import guess_kind as guess_kind
from train.sources.guess import guess_source as guess_source
from train.sources.hub import read_hub
from train.sources.image_folder import read_image_folder
from train.sources.jsonl_files import read_jsonl
from train.sources.parquet_files import read_parquet
from train.sources.paths import expand as expand

_SOURCES: dict[str, Callable[[str, Reading, Task | None], Source]] = {
    "digits": read_digits,
    "mnist": read_mnist,
    "imagefolder": read_image_folder,
    "parquet": read_parquet,
    "csv": read_csv,
    "jsonl": read_jsonl,
    "hf": read_hub,
}


def load_source(source: str, reading: Reading | None = None, task: Task | None = None) -> Source:
    """Read the named source. Raises UserError for an unknown name or data that cannot be read at all.

    What is wrong with single items is in the source's `problems`. `task` says what is wanted of a Parquet file that
    holds images and texts.
    """
    name, _, where = source.partition(":")
    if name not in _SOURCES:
        raise UserError(f"unknown data source '{name}' in data.source = '{source}'", did_you_mean(name, _SOURCES))
    return _SOURCES[name](where, reading or Reading(), task)


def source_names() -> tuple[str, ...]:
    """What a source may begin with."""
    return tuple(_SOURCES)
