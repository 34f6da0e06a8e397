"""From rows (content, label, file, line) to a Source, one item at a time: nothing but an item's bytes is kept of it."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable

import numpy as np

from serve.errors import UserError, did_you_mean
from serve.manifest import Task
from train.sources.base import UNLABELLED, Contents, Items, Origins, Reading, Source
from train.sources.problems import EMPTY_CLASS, MISSING_LABEL, SPACED_LABEL, UNKNOWN_LABEL, Problems
from train.sources.spool import Spool

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


class Labels:
    """Label names as they were met, and the problems with them. Labels stay exactly as they are written."""

    def __init__(self, reading: Reading, problems: Problems) -> None:
        self.problems = problems
        self._given = reading.classes
        self._numbers: dict[str, int] = {}
        if self._given is not None:
            if len(set(self._given)) != len(self._given):
                raise UserError("data.classes names one class twice", "name each class once")
            self._numbers = {name: at for at, name in enumerate(self._given)}
        self._spaced: set[str] = set()

    def number(self, label: str | None, origin: str) -> int | None:
        """The label's number, in order of first sight; None, and a problem noted, where it cannot be one."""
        if label is None or not label.strip():
            self.problems.add(MISSING_LABEL, f"{origin}: there is no label")
            return None
        known = self._numbers.get(label)
        if known is not None:
            return known
        if self._given is not None:
            hint = did_you_mean(label, self._given)
            self.problems.add(UNKNOWN_LABEL, f"{origin}: '{label}' is not in data.classes; {hint}")
            return None
        if label != label.strip():
            self.problems.add(SPACED_LABEL, f"{origin}: '{label}'")
        return self._numbers.setdefault(label, len(self._numbers))

    def order(self, used: set[int], names: Iterable[str] | None = None) -> tuple[tuple[str, ...], np.ndarray]:
        """The class names in their order, and for each number the place of its class; int64.

        `names` is the order that the data itself gives. Classes that no item has are left out, unless the recipe
        names them.
        """
        if self._given is not None:
            return self._given, np.arange(len(self._given))
        met = {name: number for name, number in self._numbers.items() if number in used}
        if names is not None:
            for name in names:
                if name not in met:
                    self.problems.add(EMPTY_CLASS, f"class '{name}'")
            classes = [name for name in names if name in met]
        else:
            classes = sort_labels(met)
        places = np.zeros(len(self._numbers), dtype=np.int64)
        for place, name in enumerate(classes):
            places[met[name]] = place
        return tuple(classes), places


class NoLabels:
    """In the place of `Labels` where only the contents are read."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems

    def number(self, label: str | None, origin: str) -> int:
        """The same for every item."""
        return 0

    def order(self, used: set[int], names: Iterable[str] | None = None) -> tuple[tuple[str, ...], np.ndarray]:
        """No class, and UNLABELLED in its place."""
        return (), np.array([UNLABELLED], dtype=np.int64)


def new_labels(reading: Contents, problems: Problems) -> Labels | NoLabels:
    """Labels, where `reading` says how they are read."""
    return Labels(reading, problems) if isinstance(reading, Reading) else NoLabels(problems)


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Sorted; numerically, if all are numbers."""
    labels = list(labels)
    if all(_NUMBER.fullmatch(label) for label in labels):
        return sorted(labels, key=lambda label: (float(label), label))
    return sorted(labels)


class Rows:
    """The items of one split, as they are read."""

    def __init__(self, labels: Labels | NoLabels) -> None:
        self.labels = labels
        self._content = Spool()
        self._numbers = array("i")
        self._files: list[str] = []
        self._file = array("i")
        self._line = array("q")

    def file(self, name: str) -> None:
        """Rows from here on come from this file."""
        self._files.append(name)

    def add(self, content: bytes, label: str | None, line: int) -> None:
        """One row; `line` is 1-based. Without a usable label it becomes a problem."""
        number = self.labels.number(label, f"{self._files[-1]}:{line}")
        if number is None:
            return
        self._content.append(content)
        self._numbers.append(number)
        self._file.append(len(self._files) - 1)
        self._line.append(line)

    def __len__(self) -> int:
        return len(self._numbers)

    def used(self) -> set[int]:
        return set(np.unique(np.frombuffer(self._numbers, dtype=np.int32)).tolist())

    def items(self, places: np.ndarray) -> Items:
        numbers = np.frombuffer(self._numbers, dtype=np.int32)
        origins = Origins(
            tuple(self._files), np.frombuffer(self._file, dtype=np.int32), np.frombuffer(self._line, dtype=np.int64)
        )
        return Items(self._content.close(), places[numbers], origins)


def make_source(task: Task, splits: dict[str, Rows], names: Iterable[str] | None = None) -> Source:
    """The source that these splits make: "train", and "validation" and "test" where they are there."""
    labels = splits["train"].labels
    used = set().union(*(rows.used() for rows in splits.values()))
    classes, places = labels.order(used, names)
    items = {name: rows.items(places) for name, rows in splits.items()}
    problems = labels.problems.found()
    return Source(task, classes, items["train"], items.get("test"), items.get("validation"), problems)
