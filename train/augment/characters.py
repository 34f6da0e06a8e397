"""Typing errors: one character of a word is lost, changes places, is added, or is another.

Such noise makes a model sturdier against the typing of people (Belinkov & Bisk 2018, arXiv 1711.02173). Letters and
digits only; punctuation, emoji and a word of one letter are never lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from train.augment.lexicon import Pool, Script, is_letter, script
from train.augment.units import Unit, characters

Letters = Mapping[Script, Pool]
_Change = Callable[[list[str], list[int], np.random.Generator], list[str] | None]


def delete(units: list[Unit], share: float, draw: np.random.Generator) -> list[Unit]:
    """So many of the words of two letters or more without one of them."""

    def change(word: list[str], letters: list[int], draw: np.random.Generator) -> list[str] | None:
        if len(letters) < 2:
            return None
        at = _one_of(letters, draw)
        return [*word[:at], *word[at + 1 :]]

    return _change_words(units, share, change, draw)


def swap(units: list[Unit], share: float, draw: np.random.Generator) -> list[Unit]:
    """So many of the words with two neighbouring letters that differ the other way round."""

    def change(word: list[str], letters: list[int], draw: np.random.Generator) -> list[str] | None:
        pairs = [at for at in letters if at + 1 < len(word) and is_letter(word[at + 1]) and word[at] != word[at + 1]]
        if not pairs:
            return None
        at = _one_of(pairs, draw)
        return [*word[:at], word[at + 1], word[at], *word[at + 2 :]]

    return _change_words(units, share, change, draw)


def insert(units: list[Unit], share: float, pools: Letters, draw: np.random.Generator) -> list[Unit]:
    """So many of the words with a letter more, of the same script, drawn as often as the training texts have it."""

    def change(word: list[str], letters: list[int], draw: np.random.Generator) -> list[str] | None:
        near = _one_of(letters, draw)
        pool = pools.get(script(word[near]))
        at = near + int(draw.integers(2))
        return None if pool is None else [*word[:at], pool.pick(draw), *word[at:]]

    return _change_words(units, share, change, draw)


def replace(units: list[Unit], share: float, pools: Letters, draw: np.random.Generator) -> list[Unit]:
    """So many of the words with another letter in the place of one, drawn likewise."""

    def change(word: list[str], letters: list[int], draw: np.random.Generator) -> list[str] | None:
        at = _one_of(letters, draw)
        pool = pools.get(script(word[at]))
        other = None if pool is None else pool.pick_other(word[at], draw)
        return None if other is None else [*word[:at], other, *word[at + 1 :]]

    return _change_words(units, share, change, draw)


def _change_words(units: list[Unit], share: float, change: _Change, draw: np.random.Generator) -> list[Unit]:
    changed = list(units)
    for at in np.flatnonzero(draw.random(len(units)) < share):
        word = characters(units[at].word)
        letters = [place for place, character in enumerate(word) if is_letter(character)]
        new = change(word, letters, draw) if letters else None
        if new is not None:
            changed[at] = Unit(units[at].gap, "".join(new))
    return changed


def _one_of(places: list[int], draw: np.random.Generator) -> int:
    return places[int(draw.integers(len(places)))]
