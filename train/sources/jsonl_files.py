"""`jsonl:FILE` and `jsonl:DIR`: texts and labels, one JSON object a line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serve.errors import UserError
from serve.manifest import Task
from train.sources.base import Contents, Source, label_column
from train.sources.columns import find_column
from train.sources.encodings import broken_part, detect_encoding, how_to_read
from train.sources.paths import existing, files_of, shown
from train.sources.problems import EMPTY_TEXT, NOT_A_ROW, WRONG_ENCODING, Problems
from train.sources.rows import Rows, make_source, new_labels

SUFFIXES = (".jsonl", ".ndjson")
_LOOK_ROWS = 1_000


def read_jsonl(where: str, reading: Contents, _: Task | None = None) -> Source:
    """Every line of a file, or of a folder's train.jsonl, validation.jsonl and test.jsonl; without labels, of all."""
    root = existing(where, "jsonl")
    labels = new_labels(reading, Problems())
    splits = {}
    for split, paths in files_of(root, "jsonl", SUFFIXES, reading).items():
        splits[split] = rows = Rows(labels)
        for path in paths:
            _read_file(path, shown(path, root), reading, rows)
    return make_source("text", splits)


def peek_jsonl(path: Path, encoding: str | None = None) -> list[dict[str, Any]]:
    """The objects of the first 1,000 lines that hold one. Raises UserError for a file that is no JSON Lines."""
    found = []
    encoding = detect_encoding(path, encoding)
    with path.open(encoding=encoding, errors="replace") as file:
        for line in itertools.islice(file, _LOOK_ROWS):
            try:
                row = _parse(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                found.append(row)
    if not found:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty", "expected a JSON object on each line")
        hint = 'expected lines like {"text": "...", "label": "..."}; one large array becomes that with jq -c ".[]"'
        raise UserError(f"{path}:1: no JSON object on this line, nor on those below it", hint)
    return found


def jsonl_column(path: Path, name: str, column: str, reading: Contents) -> Iterator[tuple[int, str]]:
    """(line, value) of each object that has this key. Raises UserError where none of the first has."""
    find_column(sorted({key for row in peek_jsonl(path, reading.encoding) for key in row}), "group", column, name)
    encoding = detect_encoding(path, reading.encoding)
    with path.open(encoding=encoding, errors=how_to_read(encoding)) as file:
        for number, line in enumerate(file, start=1):
            try:
                row = _parse(line) if line.strip() else None
            except json.JSONDecodeError:
                continue  # no item came of it either
            if isinstance(row, dict) and row.get(column) is not None:
                yield number, _written(row[column])


def _read_file(path: Path, name: str, reading: Contents, rows: Rows) -> None:
    encoding = detect_encoding(path, reading.encoding)
    columns = sorted({column for row in peek_jsonl(path, reading.encoding) for column in row})
    find_column(columns, "text_column", reading.text_column, name)
    if (labels := label_column(reading)) is not None:
        find_column(columns, "label_column", labels, name)
    rows.file(name)
    number = 0
    try:
        with path.open(encoding=encoding, errors=how_to_read(encoding)) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    _add(rows, f"{name}:{number}", number, line, reading)
    except UnicodeError as error:
        raise UserError(f"{name}:{number + 1}: not {encoding}: {error}", "save the file again, in UTF-8") from None


def _add(rows: Rows, origin: str, number: int, line: str, reading: Contents) -> None:
    problems = rows.labels.problems
    if (broken := broken_part(line) if not line.isascii() else None) is not None:
        problems.add(WRONG_ENCODING, f"{origin}: {broken}")
        return
    try:
        row = _parse(line)
    except json.JSONDecodeError as error:
        problems.add(NOT_A_ROW, f"{origin}: not JSON: {error.msg}, column {error.colno}")
        return
    if not isinstance(row, dict):
        problems.add(NOT_A_ROW, f"{origin}: expected an object, {{...}}")
        return
    labels = label_column(reading)
    text, label = row.get(reading.text_column), None if labels is None else row.get(labels)
    for column, value in ((reading.text_column, text), (labels, label)):
        if isinstance(value, list | dict):
            problems.add(NOT_A_ROW, f"{origin}: '{column}' is not one value but {json.dumps(value)[:40]}")
            return
    if text is None or not str(text).strip():
        problems.add(EMPTY_TEXT, f"{origin}: the text is empty")
        return
    name = None if label is None else _written(label)
    try:
        content = _written(text).encode()
        (name or "").encode()
    except UnicodeEncodeError:
        problems.add(NOT_A_ROW, f"{origin}: half a surrogate pair, \\ud800 to \\udfff")
        return
    rows.add(content, name, number)


def _parse(line: str) -> Any:
    """One line's value; numbers stay as they are written: 01.0 is no 1."""
    return json.loads(line.strip(), parse_int=str, parse_float=str, parse_constant=str)


def _written(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)
