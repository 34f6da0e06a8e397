"""`parquet:FILE` and `parquet:DIR`: images or texts and their labels, as data sets lie on the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from serve.errors import UserError, said
from serve.manifest import Task
from train.sources.base import Contents, Source, label_column
from train.sources.columns import find_column, listed
from train.sources.paths import existing, files_of, shown
from train.sources.problems import EMPTY_TEXT, NOT_A_ROW, UNREADABLE_IMAGE, Problems
from train.sources.rows import Rows, make_source, new_labels

SUFFIXES = (".parquet",)
_BATCH_ROWS = 256  # photographs are large; a batch of them is in memory at a time


def read_parquet(where: str, reading: Contents, task: Task | None = None) -> Source:
    """Every row of a file, or of a folder's train*.parquet, validation*.parquet and test*.parquet.

    Without labels, of all its files. Items are images if there is a column of them and `task` does not ask for texts.
    """
    root = existing(where, "parquet")
    files = files_of(root, "parquet", SUFFIXES, reading)
    first = _open(files["train"][0], root)
    holds = _task(first, reading, task, shown(files["train"][0], root))
    labels = new_labels(reading, Problems())
    splits = {}
    for split, paths in files.items():
        splits[split] = rows = Rows(labels)
        for path in paths:
            _read_file(_open(path, root), shown(path, root), holds, reading, rows)
    column = label_column(reading)
    return make_source(holds, splits, None if column is None else class_names(first.schema_arrow, column))


def class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """The names that Hugging Face's data sets store for a column of integers; None where there are none."""
    try:
        stored = json.loads((schema.metadata or {})[b"huggingface"])
        names = stored["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def is_image_column(kind: pa.DataType) -> bool:
    """Binary, or Hugging Face's struct of bytes and path."""
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and is_image_column(kind.field(at).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def parquet_column(path: Path, name: str, column: str, reading: Contents) -> Iterator[tuple[int, str]]:
    """(row, value) of each row that has one in this column. Raises UserError where there is no such column."""
    file = _open(path, path)
    find_column(file.schema_arrow.names, "group", column, name)
    row = 0
    for batch in file.iter_batches(_BATCH_ROWS, columns=[column]):
        for value in batch.column(column).to_pylist():
            row += 1
            if value is not None:
                yield row, str(value)


def _open(path: Path, root: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).split(". ")[0]
        raise UserError(f"{shown(path, root)} is not a whole Parquet file: {reason}", "write it again") from None


def _task(file: pq.ParquetFile, reading: Contents, task: Task | None, name: str) -> Task:
    schema = file.schema_arrow
    has_images = reading.image_column in schema.names and is_image_column(schema.field(reading.image_column).type)
    has_texts = reading.text_column in schema.names
    if has_images and has_texts:
        return task or "image"
    if has_images or has_texts:
        return "image" if has_images else "text"
    raise UserError(
        f"{name} has no images in a column '{reading.image_column}' and no texts in a column '{reading.text_column}'; "
        f"it has {listed(schema.names)}",
        'name the column under [data]: image_column = "..." or text_column = "..."',
    )


def _read_file(file: pq.ParquetFile, name: str, task: Task, reading: Contents, rows: Rows) -> None:
    schema, labels = file.schema_arrow, label_column(reading)
    content = reading.image_column if task == "image" else reading.text_column
    find_column(schema.names, f"{task}_column", content, name)
    _check_content(schema, name, task, content)
    if labels is not None:
        find_column(schema.names, "label_column", labels, name)
        _check_labels(schema, name, labels)
    names = None if labels is None else class_names(schema, labels)
    rows.file(name)
    row = 0
    add = _add_image if task == "image" else _add_text
    try:
        for batch in file.iter_batches(_BATCH_ROWS, columns=[content] if labels is None else [content, labels]):
            told = [None] * len(batch) if labels is None else batch.column(labels).to_pylist()
            for value, label in zip(batch.column(content).to_pylist(), told, strict=True):
                row += 1
                add(rows, f"{name}:{row}", row, value, _label(label, names))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{name} is damaged after row {row}: {said(error)}", "write it again") from None


def _check_content(schema: pa.Schema, name: str, task: Task, content: str) -> None:
    kind = schema.field(content).type
    if task == "image" and not is_image_column(kind):
        raise UserError(f"{name}: column '{content}' holds {kind}, not images", "expected binary, or {bytes, path}")
    if task == "text" and not _is_text(kind):
        raise UserError(f"{name}: column '{content}' holds {kind}, not texts", 'name another as text_column = "..."')


def _check_labels(schema: pa.Schema, name: str, label: str) -> None:
    kind = schema.field(label).type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        hint = "expected one string or integer for each item; several labels an item are not supported"
        raise UserError(f"{name}: column '{label}' holds {kind}, which is no class", hint)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _label(value: Any, names: Sequence[str] | None) -> str | None:
    """The label as a name; -1 is how Hugging Face's data sets write that there is none, NaN how pandas does."""
    if value is None or value != value or (names is not None and value == -1):
        return None
    if names is not None and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _add_text(rows: Rows, origin: str, row: int, value: str | None, label: str | None) -> None:
    if value is None or not value.strip():
        rows.labels.problems.add(EMPTY_TEXT, f"{origin}: the text is empty")
    else:
        rows.add(value.encode(), label, row)


def _add_image(rows: Rows, origin: str, row: int, value: Any, label: str | None) -> None:
    if isinstance(value, dict):
        if not value.get("bytes") and value.get("path"):
            rows.labels.problems.add(NOT_A_ROW, f"{origin}: only a path, {value['path']}, and no image")
            return
        value = value.get("bytes")
    if value:
        rows.add(value, label, row)
    else:
        rows.labels.problems.add(UNREADABLE_IMAGE, f"{origin}: there are no bytes")
