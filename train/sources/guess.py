"""What kind of source a file or folder is, judged by names alone."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from serve.errors import UserError
from train.sources import csv_files, image_folder, jsonl_files, parquet_files
from train.sources.paths import is_stray

_BY_SUFFIX = {
    **dict.fromkeys(parquet_files.SUFFIXES, "parquet"),
    **dict.fromkeys(csv_files.SUFFIXES, "csv"),
    **dict.fromkeys(jsonl_files.SUFFIXES, "jsonl"),
    **dict.fromkeys(image_folder.SUFFIXES, "imagefolder"),
}
_OF_A_FILE = {**_BY_SUFFIX, ".txt": "csv"}  # in a folder that is README.txt, or a licence
_LOOKED_AT = 10_000  # files of a folder; enough to meet the first image of a very large one


def guess_kind(path: Path) -> str:
    """ "csv", "jsonl", "parquet" or "imagefolder". Raises UserError for what is none of them."""
    if path.is_file():
        kind = _OF_A_FILE.get(path.suffix.lower())
        if kind is not None and kind != "imagefolder":
            return kind
        raise UserError(
            f"{path} is no data set that can be read", f"expected a folder, or a file ending in {', '.join(_tables())}"
        )
    kinds = {_BY_SUFFIX.get(Path(name).suffix.lower()) for name in itertools.islice(_files(path), _LOOKED_AT)}
    # A CSV beside images is often a list of them; the images in their folders are the data then.
    for kind in ("parquet", "imagefolder", "csv", "jsonl"):
        if kind in kinds:
            return kind
    raise UserError(
        f"{path} holds no data that can be read", f"expected images, or files ending in {', '.join(_tables())}"
    )


def guess_source(path: Path) -> str:
    """The source that a recipe would name for this path: "csv:reviews.csv"."""
    return f"{guess_kind(path)}:{path}"


def _files(folder: Path) -> Iterator[str]:
    for _, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_stray(name))
        yield from (name for name in sorted(files) if not is_stray(name))


def _tables() -> list[str]:
    return [suffix for suffix, kind in _BY_SUFFIX.items() if kind != "imagefolder"]
