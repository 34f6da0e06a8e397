"""What is different between two texts, word by word."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from train.augment.units import Unit, is_masked, split

Kind = Literal["same", "new", "gone", "mask"]


@dataclass(frozen=True)
class Span:
    """A word, or some that are gone, with the white space before."""

    kind: Kind
    gap: str
    text: str


def mark_changes(before: str, after: str) -> tuple[Span, ...]:
    """The words of `after`, and in their places those of `before` that it does not have any more."""
    old, new = split(before), split(after)
    matcher = difflib.SequenceMatcher(None, [unit.word for unit in old], [unit.word for unit in new], autojunk=False)
    spans: list[Span] = []
    for what, start, end, first, last in matcher.get_opcodes():
        if what != "equal":
            spans.extend(Span("gone", *unit) for unit in old[start:end])
        if first == 0 < last and spans:  # what is now the first word has no white space of its own before it
            follows = old[(start if what == "equal" else end) :][:1]
            spans.append(Span(_kind(new[0], what), follows[0].gap if follows else "", new[0].word))
            first = 1
        spans.extend(Span(_kind(unit, what), *unit) for unit in new[first:last])
    return tuple(spans)


def _kind(unit: Unit, what: str) -> Kind:
    return "mask" if is_masked(unit) else "same" if what == "equal" else "new"
