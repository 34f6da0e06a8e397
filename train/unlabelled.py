"""[data.unlabelled]: items without labels, from which distilled students learn by their teacher's answers alone.

Bucila et al. 2006 ("Model Compression") and Ba & Caruana 2014 (arXiv 1312.6184) have students learn from such items.
None of them may stand in validation or test: on items that it has learned from a student is not judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from serve.errors import UserError
from serve.manifest import Task
from train.checks import undecodable
from train.repairs import Watch, without
from train.scan import scan
from train.sources import Items
from train.sources.base import Contents
from train.sources.problems import Kind, Problem, Problems
from train.sources.unlabelled import load_unlabelled

LEFT_OUT = "left-out test"  # of a fold: it keeps the last word, so nothing learns from it either
JUDGED_BY = ("validation", "test", LEFT_OUT)
LEAK = Kind(
    "unlabelled items that stand in validation or test", "error", "take them out of [data.unlabelled]", "duplicates"
)
KNOWN = Kind("unlabelled items that stand in train or calibration", "note", "kept as they are")


class UnlabelledConfig(Contents):
    """[data.unlabelled]: the source, how it is read, and how many of its items (an int) or what share (a float)."""

    source: str
    items: int | float | None = Field(default=None, gt=0)  # None: all; else a sample that the recipe's seed draws


@dataclass(frozen=True)
class Pool:
    """Items without labels, and the name of exactly these."""

    items: Items
    fingerprint: str


def read_unlabelled(
    config: UnlabelledConfig,
    task: Task,
    splits: Mapping[str, Items],
    seed: int,
    problems: Problems,
    drop_unreadable: bool = False,
    duplicates: str = "refuse",
    watch: Watch = lambda *_: None,
) -> Pool:
    """The items of `config`, checked against the labelled `splits`; what is wrong with them is added to `problems`.

    Left out is what `drop_unreadable` and `duplicates` ("refuse", "drop" or "keep") say. Every image is decoded: that
    one cannot be must not show after the teacher was trained. Raises UserError for what cannot be read at all, for a
    larger sample than there is, and where nothing is left.
    """
    source = load_unlabelled(config.source, config, task)
    for problem in source.problems:
        _add(problems, problem)
    items = source.items
    if task == "image":
        items = _decodable(items, problems, drop_unreadable, watch)
    if duplicates != "keep":
        leaking = _leaking(items, splits, problems)
        items = without(items, leaking) if duplicates == "drop" else items
    if not len(items):
        raise UserError(
            f"nothing is left of data.unlabelled.source = '{config.source}'", "name another, or leave it out"
        )
    items = _sample(items, config, seed)
    return Pool(items, scan(items)[0])


def without_known(items: Items, others: Items) -> Items:
    """The items that are not among the `others`."""
    return without(items, np.array(sorted(_in_both(items, others)), dtype=np.int64))


def _add(problems: Problems, problem: Problem) -> None:
    """A problem of the unlabelled source beside those of the labelled one: both may have a file of the same name."""
    first, *more = problem.examples
    problems.add(problem.kind, f"unlabelled {first}", problem.count - len(more))
    for example in more:
        problems.add(problem.kind, f"unlabelled {example}")


def _decodable(items: Items, problems: Problems, drop: bool, watch: Watch) -> Items:
    done, found = 0, Problems()

    def advance(count: int) -> None:
        nonlocal done
        done += count
        watch(done, len(items))

    bad = undecodable(items, found, advance)
    for problem in found.found():
        _add(problems, problem)
    return without(items, bad) if drop else items


def _leaking(items: Items, splits: Mapping[str, Items], problems: Problems) -> np.ndarray:
    """Rows whose bytes stand in validation or test as well, int64."""
    found: set[int] = set()
    for name, split in splits.items():
        same = _in_both(items, split)
        for row, place in same.items():
            kind = LEAK if name in JUDGED_BY else KNOWN
            problems.add(kind, f"unlabelled {items.origins[row]} is also {split.origins[place]} ({name})")
        if name in JUDGED_BY:
            found |= same.keys()
    return np.array(sorted(found), dtype=np.int64)


def _in_both(items: Items, others: Items) -> dict[int, int]:
    """The rows of `items` whose bytes are among the `others`, and a row of theirs; equal hashes are compared."""
    ours, theirs = scan(items)[1], scan(others)[1]
    places = {others.content[int(row)]: int(row) for row in np.flatnonzero(np.isin(theirs, ours))}
    rows = [int(row) for row in np.flatnonzero(np.isin(ours, theirs))]
    return {row: places[items.content[row]] for row in rows if items.content[row] in places}


def _sample(items: Items, config: UnlabelledConfig, seed: int) -> Items:
    if config.items is None:
        return items
    total = len(items)
    count = config.items if isinstance(config.items, int) else max(round(config.items * total), 1)
    if count > total:
        raise UserError(
            f"data.unlabelled.items asks for {count:,} items, but '{config.source}' has {total:,}",
            f"ask for at most {total:,}, or leave it out",
        )
    return items.take(np.sort(np.random.default_rng(seed).choice(total, count, replace=False)))
