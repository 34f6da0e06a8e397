"""Leaving items out of a source, where the recipe says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from train.checks import undecodable
from train.sources import Items, Source
from train.sources.problems import Problems

Watch = Callable[[int, int], None]  # (done, total) images of those that are decoded


def parts_of(source: Source) -> Mapping[str, Items]:
    parts = {"train": source.items, "validation": source.validation, "test": source.test}
    return {name: items for name, items in parts.items() if items is not None}


def without_undecodable(source: Source, problems: Problems, watch: Watch) -> Source:
    parts = parts_of(source)
    total, done = sum(map(len, parts.values())), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        watch(done, total)

    kept = {name: without(items, undecodable(items, problems, advance)) for name, items in parts.items()}
    return _replaced(source, kept)


def without_classes(source: Source, dropped: np.ndarray) -> Source:
    """The source as if it never had these classes."""
    stay = np.setdiff1d(np.arange(len(source.classes)), dropped)
    places = np.full(len(source.classes), -1)
    places[stay] = np.arange(len(stay))
    kept = {}
    for name, items in parts_of(source).items():
        items = items.take(np.flatnonzero(~np.isin(items.labels, dropped)))
        kept[name] = replace(items, labels=places[items.labels])
    return replace(_replaced(source, kept), classes=tuple(source.classes[at] for at in stay))


def _replaced(source: Source, parts: Mapping[str, Items]) -> Source:
    return replace(source, items=parts["train"], validation=parts.get("validation"), test=parts.get("test"))


def without(items: Items, rows: np.ndarray) -> Items:
    """The items but these rows."""
    return items.take(np.setdiff1d(np.arange(len(items)), rows))
