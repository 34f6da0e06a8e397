"""Puts another word in the place of one, as a table says: synonyms, homophones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from train.augment.units import Unit, core

Table = Mapping[str, tuple[str, ...]]  # a word in lower case -> what may stand in its place


def replace(units: list[Unit], share: float, table: Table, draw: np.random.Generator) -> list[Unit]:
    """So many of the words that the table knows as one of their entries, in the same case; signs around them stay."""
    changed = list(units)
    for at in np.flatnonzero(draw.random(len(units)) < share):
        before, word, after = core(units[at].word)
        others = table.get(word.lower(), ())
        if others:
            other = others[int(draw.integers(len(others)))]
            changed[at] = Unit(units[at].gap, before + _in_case_of(word, other) + after)
    return changed


def _in_case_of(word: str, other: str) -> str:
    if len(word) > 1 and word.isupper():
        return other.upper()
    return other[:1].upper() + other[1:] if word[:1].isupper() else other
