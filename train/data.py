"""A recipe's data: four disjoint splits of one source, each with a fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from sklearn.model_selection import train_test_split

from serve.errors import UserError
from serve.manifest import Task
from train.sources import Items, Reading, Source, load_source

SPLITS = ("train", "calibration", "validation", "test")
_DEFAULTS = {"validation": 0.1, "test": 0.2}  # where the source has no such split of its own


class DataConfig(Reading):
    """[data]: the source, how it is read, and how many items (an int) or what share of them (a float) a split gets.

    calibration is always drawn from train. validation and test are the source's own splits, or drawn from train too.
    """

    source: str
    calibration: int | float = Field(default=256, gt=0)
    validation: int | float | None = Field(default=None, gt=0)  # None: the source's own; 0.1 where it has none
    test: int | float | None = Field(default=None, gt=0)  # None: the source's own; 0.2 where it has none


@dataclass(frozen=True)
class Data:
    """Labelled items in four disjoint splits."""

    source: str
    task: Task
    classes: tuple[str, ...]
    splits: dict[str, Items]
    fingerprints: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """Names exactly these items, labels, class names and splits."""
        parts = [*self.classes, *(self.fingerprints[name] for name in SPLITS)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def load_data(config: DataConfig, seed: int, task: Task | None = None) -> Data:
    """Read the source and split it, stratified by class. The same config and seed give the same splits.

    Raises UserError for data that the recipe's `task` does not fit, or with a problem that the recipe does not repair.
    """
    source = load_source(config.source, config, task)
    check_task(source, config, task)
    splits = split(source, config, seed)
    fingerprints = {name: fingerprint(items) for name, items in splits.items()}
    return Data(config.source, source.task, source.classes, splits, fingerprints)


def check_task(source: Source, config: DataConfig, task: Task | None) -> None:
    """Refuse a recipe for images over texts, and the other way round."""
    if task not in (None, source.task):
        raise UserError(
            f"'{config.source}' holds {source.task}s, but the recipe's task is '{task}'",
            f'write task = "{source.task}" at the top of the recipe',
        )


def split(source: Source, config: DataConfig, seed: int) -> dict[str, Items]:
    """The four splits: the source's own where it has them, the others drawn from its train, stratified by class."""
    own = {"validation": source.validation, "test": source.test}
    sizes: dict[str, int | float] = {"calibration": config.calibration}
    for name, asked in (("validation", config.validation), ("test", config.test)):
        if own[name] is None:
            sizes[name] = _DEFAULTS[name] if asked is None else asked
        elif asked is not None:
            raise UserError(
                f"'{config.source}' has a {name} split of its own, but data.{name} asks for another",
                f"drop data.{name}",
            )
    total = len(source.items)
    counts = {name: size if isinstance(size, int) else round(size * total) for name, size in sizes.items()}
    _check_counts(counts, total, len(source.classes))
    rest = np.arange(total)
    rows: dict[str, np.ndarray] = {}
    for name, count in counts.items():
        labels = source.items.labels[rest]
        rest, rows[name] = train_test_split(rest, test_size=count, stratify=labels, random_state=seed)
    splits = {name: source.items.take(np.sort(taken)) for name, taken in {"train": rest, **rows}.items()}
    splits.update({name: items for name, items in own.items() if items is not None})
    return {name: splits[name] for name in SPLITS}


def _check_counts(counts: dict[str, int], total: int, classes: int) -> None:
    left = total - sum(counts.values())
    for name, count in {**counts, "train": left}.items():
        if count < classes:
            asked = ", ".join(f"{split} {size}" for split, size in counts.items())
            raise UserError(
                f"the {name} split would hold {max(count, 0)} of {total} items, fewer than the {classes} classes",
                f"the recipe asks for {asked}; change [data]",
            )


def fingerprint(items: Items) -> str:
    digest = hashlib.sha256(items.labels.astype("<i8").tobytes())
    for content in items.content:
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()
