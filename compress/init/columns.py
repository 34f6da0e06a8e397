"""Which column holds the texts and which the labels? Guessed from names and contents; every guess has its reason."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serve.errors import UserError

_TEXT_NAMES = ("text", "sentence", "content", "message", "review", "body", "comment", "question", "title", "utterance")
_LABEL_NAMES = ("label", "class", "category", "target", "sentiment", "intent", "topic", "tag", "y", "stars", "rating")
# A label is one of few: no more than this share of the rows that were looked at are different.
_MOST_DIFFERENT = 0.5


@dataclass(frozen=True)
class Guess:
    """A column, and why it was taken."""

    column: str
    why: str


def guess_columns(columns: Mapping[str, Sequence[str]]) -> tuple[Guess, Guess]:
    """(text, label) out of columns with some of their cells. Raises UserError where no two columns will do."""
    if len(columns) < 2:
        raise UserError(
            f"there is one column only: '{next(iter(columns), '')}'", "a text and its label need a column each"
        )
    label = _label(columns)
    text = _text({name: cells for name, cells in columns.items() if name != label.column})
    return text, label


def _label(columns: Mapping[str, Sequence[str]]) -> Guess:
    few = {name: cells for name, cells in columns.items() if 0 < len(set(cells)) <= _limit(cells)}
    repeated = {name: cells for name, cells in columns.items() if 0 < len(set(cells)) < len(cells)}
    if named := _by_name(few, _LABEL_NAMES) or _by_name(repeated, _LABEL_NAMES[:1]):
        return Guess(named, f"by its name; {_count(columns[named])}")
    if not few:
        raise UserError(
            "no column looks like a label: in each, almost every row is different",
            'write the recipe by hand, with label_column = "..." under [data]',
        )
    best = min(few, key=lambda name: (len(set(few[name])) < 2, _mean_length(few[name])))
    return Guess(best, f"the shortest cells; {_count(few[best])}")


def _text(columns: Mapping[str, Sequence[str]]) -> Guess:
    longest = max(columns, key=lambda name: _mean_length(columns[name]))
    named = _by_name(columns, _TEXT_NAMES)
    if named and _mean_length(columns[named]) >= 0.5 * _mean_length(columns[longest]):
        return Guess(named, "by its name")
    return Guess(longest, f"the longest cells, {_mean_length(columns[longest]):.0f} characters on average")


def _by_name(columns: Mapping[str, Sequence[str]], names: Sequence[str]) -> str | None:
    lowered = {name.strip().lower(): name for name in reversed(list(columns))}
    return next((lowered[name] for name in names if name in lowered), None)


def _limit(cells: Sequence[str]) -> float:
    return max(2, _MOST_DIFFERENT * len(cells))


def _mean_length(cells: Sequence[str]) -> float:
    return statistics.fmean(len(cell) for cell in cells) if cells else 0.0


def _count(cells: Sequence[str]) -> str:
    return f"{len(set(cells))} different values in the first {len(cells):,} rows"
