"""How a text file is encoded: as the recipe says, as its byte-order mark says, or UTF-8."""

from __future__ import annotations

import codecs
from pathlib import Path

from serve.errors import UserError, did_you_mean

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's mark does, so it is looked for first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_TEXT = (
    (b"PAR1", "a Parquet file", 'write source = "parquet:..."'),
    (b"PK\x03\x04", "a spreadsheet or a zip archive", "save it as CSV, in UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet", "save it as CSV, in UTF-8"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it with gunzip"),
    (b"\x89PNG", "an image", 'for a folder of images write source = "imagefolder:DIR"'),
    (b"\xff\xd8\xff", "an image", 'for a folder of images write source = "imagefolder:DIR"'),
)
_COMMON = ("utf-8", "utf-16", "cp1252", "cp1251", "cp1250", "latin-1", "gb18030", "big5", "shift_jis", "euc_kr")


def detect_encoding(path: Path, wanted: str | None = None) -> str:
    """The name of the codec to read `path` with. Raises UserError for what is no text file."""
    with path.open("rb") as file:
        head = file.read(4096)
    for magic, what, hint in _NOT_TEXT:
        if head.startswith(magic):
            raise UserError(f"{path} is {what}, not text", hint)
    if wanted is not None:
        return _known(wanted)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if b"\0" in head:
        guess = "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
        hint = f'if it is UTF-16 without its mark, write encoding = "{guess}" under [data]'
        raise UserError(f"{path} is not UTF-8 text: it holds zero bytes", hint)
    return "utf-8"


def how_to_read(encoding: str) -> str:
    """The error handler under which a broken row is found as such; UTF-16 and UTF-32 know of no such rows."""
    return "strict" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"


def broken_part(text: str) -> str | None:
    """The surroundings of the first byte that is no text, as far as they can be shown; None if all is text."""
    at = next((at for at, char in enumerate(text) if _is_broken(char)), None)
    if at is None:
        return None
    part = text[max(0, at - 15) : at + 15]
    return "'" + "".join(f"\\x{ord(char) & 0xFF:02x}" if _is_broken(char) else char for char in part) + "'"


def _is_broken(char: str) -> bool:
    return "\ud800" <= char <= "\udfff"


def _known(wanted: str) -> str:
    try:
        name = codecs.lookup(wanted).name
        "".encode(name)  # "hex" and its like are codecs, but not of text
    except LookupError:
        hint = did_you_mean(wanted, _COMMON)
        raise UserError(f"there is no text encoding called '{wanted}' (data.encoding)", hint) from None
    return "utf-8-sig" if name == "utf-8" else name  # a mark at the beginning is no part of the first column's name
