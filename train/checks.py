"""What may be wrong with data once it is read: class sets, rare classes, images that do not decode, leaks.

Each check notes problems; those that can be mended by leaving items out say which.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from serve.errors import InputError
from serve.images import prepare_image
from serve.manifest import ImagePreprocessing
from train.scan import scan
from train.sources import Items, Source
from train.sources.problems import UNREADABLE_IMAGE, Kind, Problems

_NEAR_EMPTY = 10  # items to learn a class from, below which we say so
_CHUNK = 256  # images that are in memory at a time

ONE_CLASS = Kind("only one class", "error", "a classifier needs at least two; is label_column the right one?")
TOO_FEW = Kind("too few items", "error", "a model needs dozens of items of each class")
NOT_IN_TRAIN = Kind("classes that train lacks", "error", "give train items of these classes, or take them out here")
NOT_IN_SPLIT = Kind("classes that a split lacks", "warning", "nothing will be known of them there")
RARE = Kind("classes with too few items to be split", "error", "give them more items, or merge them", "rare_classes")
ALL_RARE = Kind("labels that are nearly all different", "error", "is label_column the right one?")
NEAR_EMPTY = Kind("classes that are nearly empty", "warning", f"fewer than {_NEAR_EMPTY} items to learn from")
LEAK = Kind("items in more than one split", "error", "take each out of all splits but one", "duplicates")
CONFLICT = Kind("equal items with different labels", "warning", "kept as they are; one of the labels is wrong")
REPEATED = Kind("items more than once in a split", "note", "kept as they are")

_DECODE = ImagePreprocessing(color="RGB", size=(1, 1), interpolation="nearest")  # as a request's image is decoded


def check_classes(source: Source, drawn: int, problems: Problems) -> np.ndarray:
    """Look at the classes of a source from whose train `drawn` splits are drawn; returns the rare classes."""
    sizes = np.bincount(source.items.labels, minlength=len(source.classes))
    none, needed = np.zeros(0, dtype=np.int64), drawn + 1
    if len(source.items) < 2 * needed:
        problems.add(TOO_FEW, f"{_first(source.items)}: there are {_count(len(source.items))} to train on in all")
        return none
    if len(source.classes) < 2:
        problems.add(ONE_CLASS, f"{_first(source.items)}: every item has the label '{source.classes[0]}'")
        return none
    elsewhere = _check_other_splits(source, sizes, problems)
    rare = np.array([at for at in np.flatnonzero(sizes < needed) if at not in elsewhere], dtype=np.int64)
    if len(rare) > max(3, len(source.classes) / 2):
        what = f"{len(source.items)} items have {len(source.classes)} labels, such as '{source.classes[rare[0]]}'"
        problems.add(ALL_RARE, f"{_first(source.items, rare[0])}: {what}")
        return none
    for at in rare:
        where = _first(source.items, at)
        problems.add(RARE, f"{where}: class '{source.classes[at]}' has {_count(sizes[at])}, {needed} are needed")
    for at in np.flatnonzero((sizes >= needed) & (sizes < _NEAR_EMPTY)):
        problems.add(NEAR_EMPTY, f"{_first(source.items, at)}: class '{source.classes[at]}' has {_count(sizes[at])}")
    return rare


def _check_other_splits(source: Source, sizes: np.ndarray, problems: Problems) -> set[int]:
    """The classes that are in validation or test alone."""
    missing: set[int] = set()
    for name, items in (("validation", source.validation), ("test", source.test)):
        if items is None:
            continue
        there = np.bincount(items.labels, minlength=len(sizes))
        for at in np.flatnonzero((there > 0) & (sizes == 0)):
            missing.add(int(at))
            what = f"class '{source.classes[at]}' is in {name}, {_count(there[at])}, but not in train"
            problems.add(NOT_IN_TRAIN, f"{_first(items, at)}: {what}")
        for at in np.flatnonzero((there == 0) & (sizes > 0)):
            problems.add(NOT_IN_SPLIT, f"{_first(source.items, at)}: class '{source.classes[at]}' is not in {name}")
    return missing


def _first(items: Items, label: int | np.integer[Any] | None = None) -> str:
    """Where the first item is, of a class or of all."""
    rows = np.arange(len(items)) if label is None else np.flatnonzero(items.labels == label)
    return items.origins[int(rows[0])] if len(rows) else "train"


def _count(number: int) -> str:
    return "1 item" if number == 1 else f"{number} items"


def undecodable(items: Items, problems: Problems, advance: Callable[[int], None] = lambda _: None) -> np.ndarray:
    """Rows of images that a server could not decode, int64; decoded in parallel threads, nothing is kept."""
    bad = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # decoding runs outside Python's lock
        for start in range(0, len(items), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(items)))
            for row, problem in zip(
                rows, threads.map(lambda row: _decode_problem(items.content[row]), rows), strict=True
            ):
                if problem is not None:
                    bad.append(row)
                    problems.add(UNREADABLE_IMAGE, f"{items.origins[row]}: {problem}")
            advance(len(rows))
    return np.array(bad, dtype=np.int64)


def _decode_problem(item: bytes) -> str | None:
    try:
        prepare_image(item, _DECODE)
    except InputError as error:
        return error.message
    return None


def find_duplicates(
    splits: Mapping[str, Items], hashes: Mapping[str, np.ndarray], classes: tuple[str, ...], problems: Problems
) -> dict[str, np.ndarray]:
    """Rows of each split whose item is in a later split as well, int64; `hashes` are uint64 [N] of the items' bytes."""
    names = list(splits)
    leaking: dict[str, list[int]] = {name: [] for name in names}
    for group in _groups(splits, hashes):
        last = max(names.index(name) for name, _ in group)
        leaks = [(name, row) for name, row in group if names.index(name) < last]
        where = {(name, row): splits[name].origins[row] for name, row in group}
        labels = {place: classes[splits[place[0]].labels[place[1]]] for place in group}
        kept = next(place for place in group if names.index(place[0]) == last)
        for name, row in leaks:
            leaking[name].append(row)
            problems.add(LEAK, f"{where[name, row]} ({name}) is also {where[kept]} ({kept[0]})")
        if not leaks and len(set(labels.values())) == 1:
            problems.add(REPEATED, f"{where[group[1]]} repeats {where[group[0]]}", len(group) - 1)
        if len(set(labels.values())) > 1:
            other = next(place for place in group if labels[place] != labels[group[0]])
            example = f"{where[group[0]]} is '{labels[group[0]]}', {where[other]} is '{labels[other]}'"
            problems.add(CONFLICT, example)
    return {name: np.array(sorted(rows), dtype=np.int64) for name, rows in leaking.items()}


def equal_items(items: Items) -> list[list[int]]:
    """The rows of each item that is there more than once."""
    return [[row for _, row in group] for group in _groups({"": items}, {"": scan(items)[1]})]


def _groups(splits: Mapping[str, Items], hashes: Mapping[str, np.ndarray]) -> Iterator[list[tuple[str, int]]]:
    """Places (split, row) of equal items, in the order of the splits; equal hashes are compared byte by byte."""
    together = np.concatenate([hashes[name] for name in splits])
    values, counts = np.unique(together, return_counts=True)
    repeated = values[counts > 1]
    places: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    for name, items in splits.items():
        for row in np.flatnonzero(np.isin(hashes[name], repeated)):
            places[items.content[int(row)]].append((name, int(row)))
    yield from (group for group in places.values() if len(group) > 1)
