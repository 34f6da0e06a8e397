"""What kind of data lies at a path, and how it has to be read: the first thing that `limbeck init` finds out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from serve.errors import UserError
from train.sources import Reading, csv_files, jsonl_files, parquet_files
from train.sources.encodings import detect_encoding
from train.sources.guess import guess_kind
from train.sources.paths import split_files

_ROWS = 1_000
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Format:
    """A source for a recipe, the keys of [data] that it needs with the reason of each, and some cells by column."""

    source: str
    keys: dict[str, tuple[Any, str]] = field(default_factory=dict)
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of texts in tables only


def recognise(path: Path) -> Format:
    """The format of the file or folder at `path`. Raises UserError if it is none that is known."""
    if not path.exists():
        raise UserError(f"there is nothing at {path}", "give a CSV, JSONL or Parquet file, or a folder of images")
    kind = guess_kind(path)
    if kind == "imagefolder":
        return Format(f"imagefolder:{path}")
    suffixes, read = _TABLES[kind]
    first = path if path.is_file() else split_files(path, kind, suffixes)["train"][0]
    return read(f"{kind}:{path}", first)


def _csv(source: str, file: Path) -> Format:
    keys: dict[str, tuple[Any, str]] = {}
    encoding = _unusual_encoding(file)
    if encoding is not None:
        keys["encoding"] = (
            encoding,
            "the file is not UTF-8 throughout; this reads it, look whether the accents are right",
        )
    shown = csv_files.peek(file, Reading(encoding=encoding))
    names, *rows = shown.rows
    if csv_files.looks_headerless(shown.rows):
        keys["header"] = (False, "the first line is an item, so columns go by position")
        names, rows = [str(at + 1) for at in range(len(names))], shown.rows
    if shown.delimiter != ",":
        keys["delimiter"] = (shown.delimiter, "found in the first rows")
    whole = [row for row in rows if len(row) == len(names)]
    return Format(source, keys, {name: [row[at] for row in whole] for at, name in enumerate(names)})


def _unusual_encoding(file: Path) -> str | None:
    """cp1252, of Western Windows, where a file without a byte-order mark is not UTF-8; the whole file is read."""
    if detect_encoding(file) != "utf-8":
        return None
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            try:
                (chunk + opened.readline()).decode()
            except UnicodeDecodeError:
                return "cp1252"
    return None


def _jsonl(source: str, file: Path) -> Format:
    cells: dict[str, list[str]] = {}
    for row in jsonl_files.peek_jsonl(file):
        for name, value in row.items():
            cells.setdefault(name, []).append(value if isinstance(value, str) else json.dumps(value))
    return Format(source, {}, cells)


def _parquet(source: str, file: Path) -> Format:
    opened = pq.ParquetFile(file)
    schema = opened.schema_arrow
    images = [name for name in schema.names if parquet_files.is_image_column(schema.field(name).type)]
    others = [name for name in schema.names if name not in images]
    head = next(opened.iter_batches(_ROWS, columns=others), None)
    if head is None:
        raise UserError(f"{file} has no rows", "expected one row for each item")
    cells = {name: [str(value) for value in head.column(name).to_pylist()] for name in others}
    if not images:
        return Format(source, {}, cells)
    keys: dict[str, tuple[Any, str]] = {}
    if "image" not in images:
        keys["image_column"] = (images[0], "the column that holds bytes")
    if "label" not in others and others:
        label = min(others, key=lambda name: len(set(cells[name])))
        keys["label_column"] = (label, f"{len(set(cells[label]))} different values in the first rows")
    return Format(source, keys)


_TABLES: dict[str, tuple[Sequence[str], Callable[[str, Path], Format]]] = {
    "csv": (csv_files.SUFFIXES, _csv),
    "jsonl": (jsonl_files.SUFFIXES, _jsonl),
    "parquet": (parquet_files.SUFFIXES, _parquet),
}
