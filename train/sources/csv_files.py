"""`csv:FILE` and `csv:DIR`: texts and labels in delimited files, read row by row, however long they are."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from serve.errors import UserError
from serve.manifest import Task
from train.sources.base import Contents, Reading, Source, label_column
from train.sources.columns import find_column, listed
from train.sources.encodings import broken_part, detect_encoding, how_to_read
from train.sources.paths import existing, files_of, shown
from train.sources.problems import EMPTY_TEXT, WRONG_CELLS, WRONG_ENCODING, Problems
from train.sources.rows import Rows, make_source, new_labels

SUFFIXES = (".csv", ".tsv")
DELIMITERS = ",;\t|"
# What is longer is a quote that was never closed. The csv module's own limit, 131,072, cuts off real documents.
_MAX_CELL = 16 * 1024 * 1024
_LOOK_BYTES, _LOOK_ROWS = 256 * 1024, 1_000


@dataclass(frozen=True)
class Peek:
    """What the beginning of a delimited file shows: how it is written, and its first rows, the header included."""

    encoding: str
    delimiter: str
    rows: list[list[str]]


@dataclass(frozen=True)
class _Layout:
    """What the rows of a file must look like."""

    name: str
    cells: int
    text: int
    label: int | None


def read_csv(where: str, reading: Contents, _: Task | None = None) -> Source:
    """Every row of a file, or of a folder's train.csv, validation.csv and test.csv; without labels, of all there."""
    root = existing(where, "csv")
    labels = new_labels(reading, Problems())
    splits = {}
    for split, paths in files_of(root, "csv", SUFFIXES, reading).items():
        splits[split] = rows = Rows(labels)
        for path in paths:
            _read_file(path, shown(path, root), reading, rows)
    return make_source("text", splits)


def peek(path: Path, reading: Contents | None = None) -> Peek:
    """The encoding, the delimiter and up to 1,000 rows, from the first 256 kB. Raises UserError for what is no text."""
    reading = reading or Reading()
    encoding = detect_encoding(path, reading.encoding)
    with path.open("rb") as file:
        head = file.read(_LOOK_BYTES)
        whole = not file.read(1)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    if not text.strip():
        raise UserError(f"{path} is empty", "expected a header line and a row for each item")
    delimiter = reading.delimiter or _delimiter(text, reading)
    rows = list(itertools.islice(_parse(text, delimiter), _LOOK_ROWS + 1))
    cut_off = not whole and 1 < len(rows) <= _LOOK_ROWS
    return Peek(encoding, delimiter, rows[:-1] if cut_off else rows)


def looks_headerless(rows: Sequence[Sequence[str]]) -> bool:
    """Does the first row look like an item: does one of its cells come again below it, in the same column?"""
    first, *rest = rows
    return any(cell and any(len(row) > at and row[at] == cell for row in rest) for at, cell in enumerate(first))


def csv_column(path: Path, name: str, column: str, reading: Contents) -> Iterator[tuple[int, str]]:
    """(line, cell) of each row that has this column. Raises UserError where no row has; `name` is that of the file."""
    look = peek(path, reading)
    columns = look.rows[0] if reading.header else [str(at + 1) for at in range(len(look.rows[0]))]
    place = find_column(columns, "group", column, f"{name}:1")
    with path.open(encoding=look.encoding, errors=how_to_read(look.encoding), newline="") as file:
        for line, _, cells in _numbered(file, look.delimiter, reading.header):
            if place < len(cells):
                yield line, cells[place]


def _parse(text: str, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(_MAX_CELL)
    return (row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row)


def _delimiter(text: str, reading: Contents) -> str:
    """The one under which the wanted columns are there, else the one that cuts most rows into equally many cells."""
    best, best_share = DELIMITERS[0], 0.0
    for delimiter in DELIMITERS:
        rows = list(itertools.islice(_parse(text, delimiter), _LOOK_ROWS))
        if reading.header and _wanted(reading) <= set(rows[0]):
            return delimiter
        cells = len(rows[0])
        share = sum(len(row) == cells for row in rows) / len(rows) if cells > 1 else 0.0
        if share > best_share:
            best, best_share = delimiter, share
    return best


def _wanted(reading: Contents) -> set[str]:
    """The columns that are read."""
    return {reading.text_column, label_column(reading) or reading.text_column}


def _read_file(path: Path, name: str, reading: Contents, rows: Rows) -> None:
    look = peek(path, reading)
    layout = _layout(look, name, reading)
    rows.file(name)
    line = 0
    try:
        with path.open(encoding=look.encoding, errors=how_to_read(look.encoding), newline="") as file:
            for line, last, cells in _numbered(file, look.delimiter, reading.header):
                _add(rows, layout, line, last, cells)
    except UnicodeError as error:
        raise UserError(f"{name}:{line + 1}: not {look.encoding}: {error}", "save the file again, in UTF-8") from None
    except csv.Error as error:
        hint = f"is a quote never closed? A cell holds at most {_MAX_CELL // 2**20} MB"
        raise UserError(f"{name}, somewhere after line {line}: {error}", hint) from None


def _numbered(file: io.TextIOBase, delimiter: str, header: bool) -> Iterator[tuple[int, int, list[str]]]:
    """(first line, last line, cells) of each row that is not blank; lines count from 1; the header is left out."""
    reader = csv.reader(file, delimiter=delimiter)
    before = 0
    for cells in reader:
        first, before = before + 1, reader.line_num
        if cells and not header:
            yield first, before, cells
        header = header and not cells


def _add(rows: Rows, layout: _Layout, line: int, last: int, cells: list[str]) -> None:
    problems, origin = rows.labels.problems, f"{layout.name}:{line}"
    if len(cells) != layout.cells:
        quote = f"; the row goes on to line {last}: is a quote never closed?" if last > line else ""
        problems.add(WRONG_CELLS, f"{origin}: {len(cells)} instead of {layout.cells} cells{quote}")
        return
    text, label = cells[layout.text], None if layout.label is None else cells[layout.label]
    try:
        content = text.encode()
        (label or "").encode()
    except UnicodeEncodeError:
        problems.add(WRONG_ENCODING, f"{origin}: {broken_part(text) or broken_part(label or '')}")
        return
    if text and not text.isspace():
        rows.add(content, label, line)
    else:
        problems.add(EMPTY_TEXT, f"{origin}: the text is empty")


def _layout(look: Peek, name: str, reading: Contents) -> _Layout:
    """Where the text and the label stand. Raises UserError for columns that are not there."""
    first = look.rows[0]
    columns = first if reading.header else [str(at + 1) for at in range(len(first))]
    labels = label_column(reading)
    by_position = 'the columns are called by position, for example text_column = "1"' + (
        "" if labels is None else ', label_column = "2"'
    )
    if not _wanted(reading) <= set(columns):
        if not reading.header:
            raise UserError(f"{name} is read without a header, and has columns {listed(columns)}", by_position)
        if looks_headerless(look.rows):
            hint = f"write header = false under [data]; then {by_position}"
            raise UserError(f"{name}:1: there is no header: the first line is an item: {listed(columns)}", hint)
    text = find_column(columns, "text_column", reading.text_column, f"{name}:1")
    label = None if labels is None else find_column(columns, "label_column", labels, f"{name}:1")
    return _Layout(name, len(first), text, label)
