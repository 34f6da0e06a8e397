"""Successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943) over epochs of one and the same training.

A student is trained as the recipe says, with its whole schedule, and paused after some of the epochs. Those that are
better than the rest go on from their checkpoints, which gives the same weights as if they had never been paused: what
the search ends with is what `limbeck run` would train. A schedule that was cut short for each step would have to begin
anew each time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """How a student stands after some epochs."""

    name: str
    accuracy: float  # 0..1, the best on validation so far
    aim: float  # latency or size, less is better
    group: str = (
        ""  # is compared with its like: what begins with trained weights is ahead at first, whatever it is worth
    )


def rungs(epochs: int, contenders: int, one_of: int) -> list[int]:
    """After how many epochs contenders are compared; the last entry is the whole training.

    One in `one_of` goes on, so that many contenders have their steps early: 9 of 9 epochs, one of 3, are 1, 3, 9.
    """
    steps = math.ceil(math.log(max(contenders, 1), one_of) - 1e-9) if contenders > 1 else 0
    marks = {max(1, epochs // one_of**step) for step in range(1, steps + 1)}
    return [*sorted(mark for mark in marks if mark < epochs), epochs]


def promoted(standings: Sequence[Standing], items: int, one_of: int) -> list[str]:
    """The names of those that go on: one in `one_of` of each group, rounded up, the best of a group first.

    Accuracies on `items` validation items that differ by less than a standard error count as equal; the one that is
    faster (or smaller) goes first then.
    """
    found: list[str] = []
    for group in dict.fromkeys(standing.group for standing in standings):
        alike = [standing for standing in standings if standing.group == group]
        keep = math.ceil(len(alike) / one_of)
        found += [standing.name for standing in ranked(alike, items)[:keep]]
    return found


def ranked(standings: Sequence[Standing], items: int) -> list[Standing]:
    """The best first; see `promoted`."""
    waiting, ordered = list(standings), []
    while waiting:
        best = max(standing.accuracy for standing in waiting)
        error = math.sqrt(max(best * (1 - best), 1 / items) / items)
        alike = [standing for standing in waiting if standing.accuracy >= best - error]
        first = min(alike, key=lambda standing: (standing.aim, standing.name))
        ordered.append(first)
        waiting.remove(first)
    return ordered
