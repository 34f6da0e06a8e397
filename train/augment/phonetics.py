"""Words that sound alike: by Metaphone where letters are Latin, by pinyin where characters are Chinese.

Metaphone (Philips 1990) is for English and deaf to vowels inside a word, so that "good" and "cat" have one code; of the
words of a code only those that are also written much alike count here. Pinyin is compared with its tones.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import regex

from serve.errors import UserError
from train.augment.replacements import Table

_LATIN = regex.compile(r"[\p{Latin}\p{M}'’]+")
_HAN = regex.compile(r"\p{Han}")
_MOST = 5  # homophones of a word
_ALIKE = 0.75  # Jaro similarity of the spellings, 1 for equal ones: "there" and "their" have 0.87, "good" and "cat" 0
_INSTALL = 'pip install "limbeck[phonetics]", or pip install jellyfish pypinyin'


def check_homophones() -> None:
    """Raise UserError where the libraries are missing, before anything is trained."""
    for name in ("jellyfish", "pypinyin"):
        _library(name)


def homophone_table(counts: Mapping[str, int]) -> Table:
    """For each word that occurs, at most 5 others that sound like it: the most alike in writing, the most frequent.

    Raises UserError where the libraries are missing.
    """
    lower: Counter[str] = Counter()
    for word, count in counts.items():
        lower[word.lower()] += count
    words = sorted(lower, key=lambda word: (-lower[word], word))
    return {**_latin(words), **_chinese(words)}


def _latin(words: Iterable[str]) -> Table:
    jellyfish = _library("jellyfish")
    groups = _grouped((word for word in words if _LATIN.fullmatch(word)), jellyfish.metaphone)
    table: dict[str, tuple[str, ...]] = {}
    for group in groups:
        for word in group:
            alike = {other: jellyfish.jaro_similarity(word, other) for other in group if other != word}
            near = sorted((other for other, how in alike.items() if how >= _ALIKE), key=lambda other: -alike[other])
            if near:
                table[word] = tuple(near[:_MOST])
    return table


def _chinese(words: Iterable[str]) -> Table:
    pypinyin = _library("pypinyin")

    def code(character: str) -> str:
        return "".join(pypinyin.lazy_pinyin(character, style=pypinyin.Style.TONE3, errors="ignore"))

    groups = _grouped((word for word in words if _HAN.fullmatch(word)), code)
    return {word: tuple(other for other in group if other != word)[:_MOST] for group in groups for word in group}


def _grouped(words: Iterable[str], code: Callable[[str], str]) -> list[list[str]]:
    """The words of each code that more than one has."""
    groups: dict[str, list[str]] = {}
    for word in words:
        groups.setdefault(code(word), []).append(word)
    groups.pop("", None)  # of those that no reading is known of
    return [group for group in groups.values() if len(group) > 1]


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"fit.augment.homophone needs {name}, which is not installed", _INSTALL) from None
