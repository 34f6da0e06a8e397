"""The words and letters of the training texts, to draw from as often as they occur there."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from train.augment.units import characters, core, split

_KEYCAP = "\u20e3"  # makes an emoji of a digit: 1, a variation selector and this
Script = tuple[str, bool]  # "LATIN", "CJK", "DIGIT" ...; whether in capitals


class Pool:
    """Distinct strings, each drawn as often as it was counted."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._items = sorted(counts)
        self._ends = np.cumsum([counts[item] for item in self._items])
        self._at = {item: at for at, item in enumerate(self._items)}

    def __len__(self) -> int:
        return len(self._items)

    def pick(self, draw: np.random.Generator) -> str:
        return self._items[int(np.searchsorted(self._ends, draw.integers(self._ends[-1]), side="right"))]

    def pick_other(self, than: str, draw: np.random.Generator) -> str | None:
        """Any but `than`; None where there is no other."""
        at = self._at.get(than)
        if at is None:
            return self.pick(draw)
        start = int(self._ends[at - 1]) if at else 0
        width = int(self._ends[at]) - start
        rest = int(self._ends[-1]) - width
        if rest == 0:
            return None
        place = int(draw.integers(rest))
        place += width * (place >= start)
        return self._items[int(np.searchsorted(self._ends, place, side="right"))]


@dataclass(frozen=True)
class Lexicon:
    """What occurs in the training texts."""

    counts: Mapping[str, int]  # of each word, without punctuation around it
    words: Pool
    letters: Mapping[Script, Pool]

    def pick(self, draw: np.random.Generator) -> str | None:
        """A word, as often as it occurs; None where there is none at all."""
        return self.words.pick(draw) if len(self.words) else None


def read_lexicon(texts: Iterable[str]) -> Lexicon:
    """Count the words and letters of all texts; in memory are only those that differ."""
    raw: Counter[str] = Counter()
    for text in texts:
        raw.update(unit.word for unit in split(text))
    counts: Counter[str] = Counter()
    for word, count in raw.items():
        if inner := core(word)[1]:
            counts[inner] += count
    letters: dict[Script, Counter[str]] = {}
    for word, count in counts.items():
        for letter in characters(word):
            if is_letter(letter):
                letters.setdefault(script(letter), Counter())[letter] += count
    return Lexicon(counts, Pool(counts), {key: Pool(found) for key, found in letters.items()})


def is_letter(character: str) -> bool:
    """Letters and digits, with their marks; no punctuation, no emoji, not even one that begins with a digit."""
    return character[0].isalnum() and _KEYCAP not in character


def script(letter: str) -> Script:
    """The script of a letter, as its Unicode name begins, and whether it is a capital."""
    return unicodedata.name(letter[0], "").partition(" ")[0].partition("-")[0], letter.isupper()
