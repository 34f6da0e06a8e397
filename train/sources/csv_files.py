"""`csv:FILE` and `csv:DIR`: texts and labels in delimited files, read line by line, however long they are."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from serve.errors import UserError, did_you_mean
from train.sources.base import Reading, Source
from train.sources.paths import existing, shown, split_files
from train.sources.problems import EMPTY_TEXT, WRONG_CELLS, WRONG_ENCODING, Problems
from train.sources.rows import Labels, Rows, make_source

SUFFIXES = (".csv", ".tsv")
DELIMITERS = ",;\t|"
# A cell longer than this is a quote that was never closed. The csv module's own limit is 131,072.
_MAX_CELL = 16 * 1024 * 1024
_LOOK_BYTES, _LOOK_ROWS = 256 * 1024, 50

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16's mark, so it is looked for first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_TEXT = ((b"PAR1", "a Parquet file", "parquet:"), (b"PK\x03\x04", "a spreadsheet or zip archive", ""))


@dataclass(frozen=True)
class Peek:
    """What the beginning of a delimited file shows: how it is written, and its first rows, the header included."""

    encoding: str
    delimiter: str
    rows: list[list[str]]


def read_csv(where: str, reading: Reading) -> Source:
    """Every row of a file, or of a folder's train.csv, validation.csv and test.csv."""
    root = existing(where, "csv")
    labels = Labels(reading, Problems())
    splits = {}
    for split, paths in split_files(root, "csv", SUFFIXES).items():
        splits[split] = rows = Rows(labels)
        for path in paths:
            _read_file(path, shown(path, root), reading, rows)
    return make_source("text", splits)


def peek(path: Path, reading: Reading | None = None) -> Peek:
    """The encoding, the delimiter and up to 50 rows, from the first 256 kB. Raises UserError for what is no text."""
    reading = reading or Reading()
    encoding = detect_encoding(path, reading.encoding)
    with path.open("rb") as file:
        head = file.read(_LOOK_BYTES)
        whole = not file.read(1)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    if not text.strip():
        raise UserError(f"{path} is empty", "expected a header line and one row for each item")
    delimiter = reading.delimiter or _delimiter(text, reading)
    rows = list(itertools.islice(_parse(text, delimiter), _LOOK_ROWS + 1))
    return Peek(encoding, delimiter, rows if whole or len(rows) < 2 or len(rows) > _LOOK_ROWS else rows[:-1])


def detect_encoding(path: Path, wanted: str | None = None) -> str:
    """`wanted`, or what the byte-order mark says, or UTF-8. Raises UserError for what is no text file."""
    with path.open("rb") as file:
        head = file.read(4096)
    if wanted is not None:
        try:
            name = codecs.lookup(wanted).name
        except LookupError:
            hint = did_you_mean(wanted, ("utf-8", "utf-16", "cp1252", "latin-1", "gb18030", "shift_jis", "cp1251"))
            raise UserError(f"there is no encoding called '{wanted}' (data.encoding)", hint) from None
        return "utf-8-sig" if name == "utf-8" else name
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    for magic, what, prefix in _NOT_TEXT:
        if head.startswith(magic):
            raise UserError(
                f"{path} is {what}, not text", f'write source = "{prefix}..."' if prefix else "save it as CSV"
            )
    if b"\0" in head:
        low = head[1::2].count(0) > head[::2].count(0)
        guess = "utf-16-le" if low else "utf-16-be"
        raise UserError(
            f"{path} is not UTF-8 text: it holds zero bytes",
            f'if it is UTF-16, write encoding = "{guess}" under [data]',
        )
    return "utf-8"


def _parse(text: str, delimiter: str) -> Iterator[list[str]]:
    return (row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row)


def _delimiter(text: str, reading: Reading) -> str:
    """The one under which the wanted columns are there, else the one that cuts most rows into equally many cells."""
    best, best_score = ",", 0.0
    for delimiter in DELIMITERS:
        rows = list(itertools.islice(_parse(text, delimiter), _LOOK_ROWS))
        if reading.header and {reading.text_column, reading.label_column} <= set(rows[0]):
            return delimiter
        cells = len(rows[0])
        score = sum(len(row) == cells for row in rows) / len(rows) if cells > 1 else 0.0
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _read_file(path: Path, name: str, reading: Reading, rows: Rows) -> None:
    look = peek(path, reading)
    text_at, label_at = _columns(look, name, reading)
    rows.file(name)
    strict = "strict" if look.encoding.startswith("utf-16") or look.encoding.startswith("utf-32") else "surrogateescape"
    width = len(look.rows[0])
    csv.field_size_limit(_MAX_CELL)
    try:
        with path.open(encoding=look.encoding, errors=strict, newline="") as file:
            numbered = _numbered(csv.reader(file, delimiter=look.delimiter), reading.header)
            for first, last, cells in numbered:
                _add(rows, name, first, last, cells, width, text_at, label_at)
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not {look.encoding} throughout: {error.reason}", "save the file again") from None
    except csv.Error as error:
        raise UserError(
            f"{name}: {error}, after row {len(rows)} of the items",
            "is a quote never closed? A cell holds at most 16 MB",
        ) from None


def _numbered(reader: Iterator[list[str]], header: bool) -> Iterator[tuple[int, int, list[str]]]:
    """(first line, last line, cells) of each row that is not blank; the header is left out."""
    before = 0
    for cells in reader:
        first, before = before + 1, reader.line_num  # type: ignore[attr-defined]  # csv.reader's own
        if not cells:
            continue
        if header:
            header = False
            continue
        yield first, before, cells


def _add(
    rows: Rows, name: str, first: int, last: int, cells: list[str], width: int, text_at: int, label_at: int
) -> None:
    problems = rows.labels.problems
    if len(cells) != width:
        lines = f"; the row goes on to line {last}, is a quote never closed?" if last > first else ""
        problems.add(WRONG_CELLS, f"{name}:{first}: {len(cells)} cells instead of {width}{lines}")
        return
    text, label = cells[text_at], cells[label_at]
    try:
        content = text.encode()
        label.encode()
    except UnicodeEncodeError:
        problems.add(WRONG_ENCODING, f"{name}:{first}: not UTF-8: {_escaped(text + label)}")
        return
    if not text.strip():
        problems.add(EMPTY_TEXT, f"{name}:{first}: the text is empty")
        return
    rows.add(content, label, first)


def _escaped(text: str) -> str:
    """The surroundings of the first byte that is not text, as far as they can be shown."""
    at = next(at for at, char in enumerate(text) if "\ud800" <= char <= "\udfff")
    part = text[max(0, at - 15) : at + 15]
    return "'" + "".join(f"\\x{ord(char) & 0xFF:02x}" if "\ud800" <= char <= "\udfff" else char for char in part) + "'"


def _columns(look: Peek, name: str, reading: Reading) -> tuple[int, int]:
    """Where the text and the label stand. Raises UserError for columns that are not there."""
    first = look.rows[0]
    columns = first if reading.header else [str(at + 1) for at in range(len(first))]
    wanted = {"text_column": reading.text_column, "label_column": reading.label_column}
    for key, column in wanted.items():
        if columns.count(column) == 1:
            continue
        if column in columns:
            raise UserError(f"{name} has two columns called '{column}'", f"rename one, or choose another as {key}")
        raise _no_column(look, name, key, column, columns, reading.header)
    return columns.index(reading.text_column), columns.index(reading.label_column)


def _no_column(look: Peek, name: str, key: str, column: str, columns: Sequence[str], header: bool) -> UserError:
    there = ", ".join(f"'{_short(other)}'" for other in columns[:12])
    if not header:
        hint = 'without a header, columns are called by position: text_column = "1", label_column = "2"'
        return UserError(f"{name} has no column '{column}' ({key}); it has {len(columns)}: {there}", hint)
    if looks_headerless(look.rows):
        hint = 'write header = false, and the columns by position: text_column = "1", label_column = "2"'
        return UserError(f"{name} has no header: its first line is an item: {there}", hint)
    hint = f'write {key} = "..." under [data] with the column\'s name; {did_you_mean(column, columns)}'
    return UserError(f"{name} has no column '{column}' ({key}); it has {there}", hint)


def looks_headerless(rows: Sequence[Sequence[str]]) -> bool:
    """Does the first row look like the others: does one of its cells come again below, in the same column?"""
    first, *rest = rows
    return any(cell and any(len(row) > at and row[at] == cell for row in rest) for at, cell in enumerate(first))


def _short(cell: str) -> str:
    return cell if len(cell) <= 40 else cell[:37] + "..."
