"""`hf:PATH` and `hf:ID`: a data set laid out as on the Hugging Face hub, from a local folder or from the hub itself."""

from __future__ import annotations

import re
from collections.abc import Callable

from serve.manifest import Task
from train.hub import fetch
from train.sources import csv_files, image_folder, jsonl_files, parquet_files
from train.sources.base import Reading, Source
from train.sources.guess import guess_kind
from train.sources.paths import existing, expand

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_READERS: dict[str, Callable[[str, Reading, Task | None], Source]] = {
    "csv": csv_files.read_csv,
    "jsonl": jsonl_files.read_jsonl,
    "parquet": parquet_files.read_parquet,
    "imagefolder": image_folder.read_image_folder,
}
# What is fetched: data, never code
_FETCHED = [
    f"*{suffix}"
    for suffixes in (csv_files.SUFFIXES, jsonl_files.SUFFIXES, parquet_files.SUFFIXES, image_folder.SUFFIXES)
    for suffix in suffixes
]


def read_hub(where: str, reading: Reading, task: Task | None = None) -> Source:
    """A data set's folder, or the one that the hub has under this id; read as what its files are."""
    path = fetch("dataset", where, _FETCHED) if is_hub_id(where) else existing(where, "hf")
    return _READERS[guess_kind(path)](str(path), reading, task)


def is_hub_id(where: str) -> bool:
    """Whether it names a data set of the hub: no folder here, and written as an id is."""
    return not expand(where).exists() and _HUB_ID.fullmatch(where) is not None and not where.startswith(".")
