"""Where items without labels come from: the files that labelled ones come from, without their label column.

csv:..., jsonl:..., parquet:...   a file, or every such file of a folder
imagefolder:DIR                   every image below the folder
"""

from __future__ import annotations

from collections.abc import Callable

from serve.errors import UserError, did_you_mean
from serve.manifest import Task
from train.sources.base import Contents, Source
from train.sources.csv_files import read_csv
from train.sources.image_folder import read_unlabelled_folder
from train.sources.jsonl_files import read_jsonl
from train.sources.parquet_files import read_parquet

_TABLES: dict[str, Callable[[str, Contents, Task | None], Source]] = {
    "csv": read_csv,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
}
_KINDS = (*_TABLES, "imagefolder")


def load_unlabelled(source: str, reading: Contents, task: Task) -> Source:
    """The contents of the named source, without classes; every label is UNLABELLED.

    Raises UserError for what cannot be read at all, and for contents that are none of this `task`.
    """
    check_kind(source)
    kind, _, where = source.partition(":")
    try:
        found = _TABLES[kind](where, reading, task) if kind in _TABLES else read_unlabelled_folder(where)
    except UserError as error:
        raise told_of_unlabelled(error) from None
    if found.task != task:
        raise UserError(
            f"data.unlabelled.source = '{source}' holds {found.task}s, but the labelled items are {task}s",
            "students learn from both alike: name a source of the same kind",
        )
    return found


def check_kind(source: str) -> None:
    """Raise UserError for a source from which no items without labels can be read."""
    kind = source.partition(":")[0]
    if kind not in _KINDS:
        hint = f"{did_you_mean(kind, _KINDS)}; they are read from {', '.join(f'{name}:' for name in _KINDS)}"
        raise UserError(f"data.unlabelled.source = '{source}' is no source of items without labels", hint)


def told_of_unlabelled(error: UserError) -> UserError:
    """The error of a source, with the name that it has in a recipe here."""
    return UserError(error.message.replace("data.source", "data.unlabelled.source"), error.hint)
