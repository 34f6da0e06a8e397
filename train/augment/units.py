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
_CHUNK = regex.compile(r"\S+")
_CHARACTER = regex.compile(r"\X")
_LETTER = regex.compile(r"[\p{L}\p{M}\p{N}]")
# The core goes from the first of these to the last with its marks; a mark after a sign, the last part of many an emoji,
# belongs to the sign. Two searches: one pattern with a wildcard between the ends takes the square of a long word.
_FIRST = regex.compile(r"[\p{L}\p{N}]")
_LAST = regex.compile(r"(?r)[\p{L}\p{N}]")  # sought from the end
_MARKS = regex.compile(r"\p{M}*")


class Unit(NamedTuple):
    """A word, and the white space before it."""

    gap: str
    word: str


def split(text: str) -> list[Unit]:
    """The words of a text; `join` gives the text again, but for white space around it."""
    units: list[Unit] = []
    end = 0
    for match in _CHUNK.finditer(text):
        gap, chunk = text[end : match.start()], match[0]
        end = match.end()
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
    first, last = _FIRST.search(word), _LAST.search(word)
    if first is None or last is None:
        return word, "", ""
    marks = _MARKS.match(word, last.end())
    start, end = first.start(), last.end() if marks is None else marks.end()
    return word[:start], word[start:end], word[end:]


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
