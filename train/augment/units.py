"""A text as words and the white space between them, in scripts with and without spaces.

A word is what stands between spaces. Where a script writes none (Chinese, Japanese, Thai, Lao, Khmer, Burmese), each
character is one: a base with its marks, as a reader counts (Unicode UAX #29), so that none is torn apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import regex

MASK = "\ufdd0"  # stands for a masked word until it is tokenized: a noncharacter, which no text may hold

# and masks, which stay words of their own beside such characters
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー" + MASK + "]")
_CHUNK = regex.compile(r"(\s*)(\S+)")
_CHARACTER = regex.compile(r"\X")
_LETTER = regex.compile(r"[\p{L}\p{M}\p{N}]")
# The core begins with a letter; a mark after a sign (the last part of many an emoji) belongs to the sign.
_CORE = regex.compile(r"([^\p{L}\p{N}]*)(.*?)((?:[^\p{L}\p{M}\p{N}]\p{M}*)*)", regex.DOTALL)


class Unit(NamedTuple):
    """A word, and the white space before it."""

    gap: str
    word: str


def split(text: str) -> list[Unit]:
    """The words of a text; `join` gives the text again, but for white space around it."""
    units: list[Unit] = []
    for match in _CHUNK.finditer(text):
        gap, chunk = match[1], match[2]
        words = [chunk] if chunk.isascii() or not _UNSPACED.search(chunk) else _words(chunk)
        units.append(Unit(gap, words[0]))
        units.extend(Unit("", word) for word in words[1:])
    return units


def join(units: Sequence[Unit]) -> str:
    """The text of these words. Two of a script with spaces get one, wherever they come from."""
    parts: list[str] = []
    last = ""
    for gap, word in units:
        parts.append(" " if not gap and _run_together(last, word) else gap)
        parts.append(word)
        last = word
    return "".join(parts).strip()


def characters(word: str) -> list[str]:
    """The characters of a word as a reader counts them: marks, and the parts of an emoji, stay together."""
    return list(word) if word.isascii() else _CHARACTER.findall(word)


def core(word: str) -> tuple[str, str, str]:
    """What stands before, in and after a word: ("(", "film", ").") of "(film)."; each may be empty."""
    match = _CORE.fullmatch(word)
    assert match is not None
    return match[1], match[2], match[3]


def is_unspaced(word: str) -> bool:
    """Whether a word begins in a script that writes no spaces."""
    return _UNSPACED.match(word) is not None


def is_masked(unit: Unit) -> bool:
    return unit.word == MASK


def _words(chunk: str) -> list[str]:
    words: list[str] = []
    running = False
    for character in characters(chunk):
        alone = is_unspaced(character)
        if running and not alone:
            words[-1] += character
        else:
            words.append(character)
        running = not alone
    return words


def _run_together(left: str, right: str) -> bool:
    """Whether two words without a space between them would read as one."""
    return bool(
        left
        and _LETTER.match(left[-1])
        and _LETTER.match(right[0])
        and not (_UNSPACED.match(left[-1]) or _UNSPACED.match(right[0]))
    )
