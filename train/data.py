"""A recipe's data: four disjoint splits of one source, each with a fingerprint, and how an item is prepared."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from sklearn.model_selection import train_test_split

from serve.errors import UserError
from serve.manifest import Task
from train.sources import Items, Source, load_source

SPLITS = ("train", "calibration", "validation", "test")


class DataConfig(BaseModel):
    """[data]: the source, and how many items (an int) or what share of the source's (a float) each split gets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    calibration: int | float = Field(default=256, gt=0)
    validation: int | float = Field(default=0.1, gt=0)
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


def load_data(config: DataConfig, seed: int) -> Data:
    """Read the source and split it, stratified by class. The same config and seed give the same splits."""
    source = load_source(config.source)
    splits = _split(source, config, seed)
    fingerprints = {name: _fingerprint(items) for name, items in splits.items()}
    return Data(config.source, source.task, source.classes, splits, fingerprints)


def _split(source: Source, config: DataConfig, seed: int) -> dict[str, Items]:
    if source.test is not None and config.test is not None:
        raise UserError(
            f"'{config.source}' has a test split of its own, but data.test asks for another", "drop data.test"
        )
    total = len(source.items)
    wanted = {"calibration": config.calibration, "validation": config.validation}
    if source.test is None:
        wanted["test"] = 0.2 if config.test is None else config.test
    counts = {name: size if isinstance(size, int) else round(size * total) for name, size in wanted.items()}
    _check_counts(counts, total, len(source.classes))
    rest = np.arange(total)
    rows: dict[str, np.ndarray] = {}
    for name, count in counts.items():
        labels = source.items.labels[rest]
        rest, rows[name] = train_test_split(rest, test_size=count, stratify=labels, random_state=seed)
    splits = {name: source.items.take(np.sort(taken)) for name, taken in {"train": rest, **rows}.items()}
    if source.test is not None:
        splits["test"] = source.test
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


def _fingerprint(items: Items) -> str:
    digest = hashlib.sha256(items.labels.astype("<i8").tobytes())
    for content in items.content:
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()
