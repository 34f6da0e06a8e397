"""What happens to whole words: some vanish, move, are added, or change case. None of these leaves a text empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from train.augment.units import MASK, Unit, is_masked, is_unspaced

InsertFrom = Literal["vocabulary", "neighbour"]
Pick = Callable[[np.random.Generator], str | None]


def mask(units: list[Unit], share: float, ranks: np.ndarray, draw: np.random.Generator) -> list[Unit]:
    """So many of the words masked on average, the less salient ones more readily, and never all.

    `ranks` uint32 [n] is each word's place from the most salient (0) on (`saliency.Salience`). The word of rank r is
    masked with the probability share * (2 r + 1) / n, which grows in even steps and has the mean `share`.
    """
    count = len(units)
    hit = draw.random(count) < share * (2 * ranks.astype(np.float64) + 1) / count
    if hit.all():
        hit[int(np.argmin(ranks))] = False
    return [Unit(unit.gap, MASK) if hits else unit for unit, hits in zip(units, hit, strict=True)]


def delete(units: list[Unit], share: float, draw: np.random.Generator) -> list[Unit]:
    """Without so many of the words, but never without all (Wei & Zou 2019, EDA, arXiv 1901.11196)."""
    kept = draw.random(len(units)) >= share
    real = np.array([not is_masked(unit) for unit in units], dtype=bool)
    if real.any() and not (kept & real).any():
        kept[draw.choice(np.flatnonzero(real))] = True
    left: list[Unit] = []
    gap = ""
    for unit, keep in zip(units, kept, strict=True):
        gap = gap or unit.gap  # the space before what is deleted parts its neighbours
        if keep:
            left.append(Unit(unit.gap or gap, unit.word))
            gap = ""
    return left


def swap(units: list[Unit], share: float, draw: np.random.Generator) -> list[Unit]:
    """So many of the words change places with the word that follows (EDA, between neighbours only)."""
    words = [unit.word for unit in units]
    for at in np.flatnonzero(draw.random(max(len(words) - 1, 0)) < share):
        words[at], words[at + 1] = words[at + 1], words[at]
    return _at_the_same_places(units, words)


def shuffle(units: list[Unit], share: float, window: int, draw: np.random.Generator) -> list[Unit]:
    """So many of the texts with their words in another order: none moves by more than `window` places; 0: any number.

    Lample et al. 2018 (arXiv 1711.00043, section 2.3): sorted by place plus a number in 0..window+1.
    """
    if draw.random() >= share:
        return units
    places = np.arange(len(units)) if window else np.zeros(len(units))
    order = np.argsort(places + draw.random(len(units)) * (window + 1), kind="stable")
    return _at_the_same_places(units, [units[at].word for at in order])


def span(units: list[Unit], share: float, least: float, draw: np.random.Generator) -> list[Unit]:
    """So many of the texts cut to a run of their words: from the share `least` of them to all, evenly drawn.

    The n-gram sampling of Tang et al. 2019 (arXiv 1903.12136): what class a phrase is of, a teacher says.
    """
    if draw.random() >= share:
        return units
    count = len(units)
    kept = int(draw.integers(max(1, round(least * count)), count + 1))
    start = int(draw.integers(count - kept + 1))
    return units[start : start + kept]


def splice(units: list[Unit], other: list[Unit], draw: np.random.Generator) -> list[Unit]:
    """The beginning of a text, of a word or more, and the end of another: together no longer than the first.

    So a batch of texts of like length stays one. CutMix (Yun et al. 2019, arXiv 1905.04899) for texts, as in SSMix
    (Yoon et al. 2021, arXiv 2106.08062), but for the label, which a teacher says.
    """
    kept = int(draw.integers(1, max(len(units), 2)))  # a text of one word stays as it is
    return [*units[:kept], *other[max(len(other) - (len(units) - kept), 0) :][: len(units) - kept]]


def insert(units: list[Unit], share: float, pick: Pick | None, draw: np.random.Generator) -> list[Unit]:
    """After so many of the words another: what `pick` gives; where it is None, a copy of a word beside that place.

    A random word of the vocabulary is the noise of Xie et al. 2017 (arXiv 1703.02573), who put it in another's place.
    """
    longer: list[Unit] = []
    for at, (unit, hit) in enumerate(zip(units, draw.random(len(units)) < share, strict=True)):
        longer.append(unit)
        follows = units[at + 1] if at + 1 < len(units) else None
        word = None if not hit else pick(draw) if pick is not None else _one_near(unit, follows, draw)
        if word is not None:
            gap = follows.gap if follows is not None else ("" if is_unspaced(word) else " ")
            longer.append(Unit(gap, word))
    return longer


def _one_near(unit: Unit, follows: Unit | None, draw: np.random.Generator) -> str | None:
    """One of two words, as far as there are two and they are not masked."""
    near = [other.word for other in (unit, follows) if other is not None and not is_masked(other)]
    return near[int(draw.integers(len(near)))] if near else None


def change_case(units: list[Unit], share: float, draw: np.random.Generator) -> list[Unit]:
    """So many of the words that have cases in another: lower, UPPER or Capitalised."""
    hit = draw.random(len(units)) < share
    return [
        Unit(unit.gap, _other_case(unit.word, draw)) if hits else unit for unit, hits in zip(units, hit, strict=True)
    ]


def _other_case(word: str, draw: np.random.Generator) -> str:
    others = [other for other in (word.lower(), word.upper(), word.capitalize()) if other != word]
    others = list(dict.fromkeys(others))  # "a" is the same capitalised and in capitals
    return others[int(draw.integers(len(others)))] if others else word


def _at_the_same_places(units: list[Unit], words: list[str]) -> list[Unit]:
    """Other words with the white space that was there."""
    return [Unit(unit.gap, word) for unit, word in zip(units, words, strict=True)]
