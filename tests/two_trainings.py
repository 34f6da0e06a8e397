"""Trainings that two processes must do as one does; what each came to lies in a folder afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch.distributed as dist
from helpers import image_classifier, image_inputs
from text_models import TEXTS, WORDS, text_classifier, tiny_folder

from kernels.fuse import FuseOptions
from kernels.runtime import interpreted
from train.augment import AugmentConfig
from train.classifier import Classifier
from train.distill import DistillConfig
from train.distill.config import FeatureConfig
from train.epochs import EpochRecord
from train.fit import fit
from train.fit_config import FitConfig
from train.following import Following
from train.fusion import Fusion
from train.inputs import Inputs, TextInputs
from train.processes import join, world
from train.shard import sharded_copy
from train.sources import Items
from train.teaching import Teaching

GENERATOR = np.random.default_rng(0)
LABELS = tuple("abcd")
# 73 items in batches of 24: the last has a single one, for which the second process has none
IMAGES, TARGETS = GENERATOR.integers(0, 256, (73, 8, 8, 1), dtype=np.uint8), GENERATOR.integers(0, 4, 73)
TRAIN, VALIDATION = image_inputs(IMAGES, TARGETS), image_inputs(IMAGES[:21], TARGETS[:21])
SHARDED = "sharded"  # how the names of trainings begin that split the model where there are several processes
SGD: dict[str, Any] = {"epochs": 2, "batch_size": 24, "optimizer": "sgd", "learning_rate": 0.05}
SOFT = DistillConfig(temperature=3.0, alpha=0.7)


class StopError(Exception):
    """In the place of kill -9."""


def mlp(widths: str = "16", seed: int = 1) -> Classifier:
    return image_classifier(IMAGES, LABELS, seed, f"builtin:mlp-{widths}")


def split_here(folder: Path) -> bool:
    """Whether a training is of those that several processes do with the model split over them."""
    return folder.name.startswith(SHARDED) and world().size > 1


def images(folder: Path, taught: bool = False, stop_after: int | None = None, **settings: Any) -> Any:
    """Train a small MLP, with a teacher or without."""
    config = FitConfig(**{**SGD, **settings})

    def stop(record: EpochRecord, epochs: int) -> None:
        if stop_after is not None and record.epoch > stop_after:
            raise StopError

    teaching = Teaching(mlp("24", seed=9), SOFT, TRAIN, known=folder.parent / "answers") if taught else None
    return fit(
        mlp("16x12"),
        config,
        TRAIN,
        VALIDATION,
        5,
        folder,
        teaching,
        following=Following(stop),
        shard=split_here(folder),
    )


def taught_again(folder: Path, **settings: Any) -> Any:
    """Twice: what the teacher answers is known the second time."""
    images(folder.with_name("before"), taught=True, **settings)
    assert len(list((folder.parent / "answers").iterdir())) == 1
    return images(folder, taught=True, **settings)


def resumed(folder: Path, **settings: Any) -> Any:
    """Stopped in the second epoch, and again."""
    settings = {"epochs": 3, "ema": 0.9, "schedule": "plateau", "step_every": 1, "patience": 2, **settings}
    try:
        images(folder, stop_after=1, **settings)
    except StopError:
        return images(folder, **settings)
    raise AssertionError("it was not stopped")


def texts(folder: Path, looks_inside: bool = True, **settings: Any) -> Any:
    """Train a small BERT, taught by a wider one, into which it looks."""
    teacher, student = (text_classifier(f"hf:{model}", dropout=0.0) for model in models(folder.parent))
    features = tuple(FeatureConfig(loss=loss, weight=0.5) for loss in ("hidden-states", "relations", "embeddings"))
    lesson = DistillConfig(temperature=2.0, alpha=0.5, features=features if looks_inside else ())
    train, validation = text_inputs(45, student), text_inputs(13, student)
    config = FitConfig(**{**SGD, "batch_size": 8, **settings})
    teaching = Teaching(teacher, lesson, train)
    return fit(student, config, train, validation, 5, folder, teaching, shard=split_here(folder))


def with_kernels(folder: Path) -> Any:
    """Train a small BERT, taught by a wider one, with kernels where they are right, in Triton's interpreter."""
    teacher, student = (text_classifier(f"hf:{model}", dropout=0.0) for model in models(folder.parent))
    train, validation = text_inputs(7, student), text_inputs(4, student)
    features = (FeatureConfig(loss="embeddings", weight=0.5),)
    teaching = Teaching(teacher, DistillConfig(temperature=2.0, alpha=0.5, features=features), train)
    chosen = mock.patch.object(Fusion, "_options", return_value=FuseOptions(force=True))
    with interpreted(), chosen:
        config = FitConfig(**{**SGD, "epochs": 1, "batch_size": 4})
        result = fit(student, config, train, validation, 5, folder, teaching)
    assert result.kernels is not None
    assert len(result.kernels.kept) == 7
    assert [loss.site for loss in result.kernels.losses if loss.kept] == [
        "soft targets and labels",
        "hidden states of 48",
    ]
    return result


def models(folder: Path) -> tuple[Path, Path]:
    """The folders of a BERT and of a narrower one, made if need be; transformers saves in the first process alone."""
    teacher, student = (folder / f"{name}-{world().rank}" for name in ("teacher", "student"))
    if not student.exists():
        tiny_folder(teacher, "bert", hidden_size=48)
        tiny_folder(student, "bert")
    return teacher, student


def text_inputs(count: int, classifier: Classifier) -> Inputs:
    random = np.random.default_rng(count)
    content = [" ".join(random.choice(WORDS, random.integers(1, 15))).encode() for _ in range(count - 1)]
    return TextInputs(Items([*content, TEXTS[0]], np.arange(count) % 2), classifier.preparer())


TRAININGS: dict[str, Callable[[Path], Any]] = {
    "labels": lambda folder: images(folder, class_weights="balanced", l1=0.01, clip=0.5),
    "focal, accumulated": lambda folder: images(folder, loss="focal", batch_size=8, accumulation=3, l1=0.01),
    "taught": lambda folder: taught_again(folder, label_smoothing=0.1),
    "taught on new views": lambda folder: images(folder, taught=True, augment=AugmentConfig(shift=1, mixup=0.4)),
    "unfrozen": lambda folder: images(folder, unfreeze=1, layer_decay=0.8),
    "resumed": resumed,
    "texts": texts,
    "texts with kernels": with_kernels,
    "sharded, resumed": lambda folder: resumed(folder, optimizer="adamw", clip=0.5, layer_decay=0.9),
    "sharded, taught on new views": lambda folder: images(folder, taught=True, augment=AugmentConfig(shift=1)),
    "sharded texts": lambda folder: texts(folder, looks_inside=False, clip=0.1),
    "sharded texts, recomputed": lambda folder: texts(
        folder,
        looks_inside=False,
        accumulation=2,
        gradient_checkpointing=True,
        train_layers=["*layer*", "*classifier*"],
    ),
    "texts, accumulated and recomputed": lambda folder: texts(folder, accumulation=2, gradient_checkpointing=True),
}


def train_together(folder: Path) -> None:
    """Do all trainings in one of two processes."""
    models(folder)
    join()
    train(folder, list(TRAININGS))
    dist.destroy_process_group()


def train(folder: Path, names: Sequence[str]) -> None:
    """Do the trainings called so, and write down their results."""
    for name in names:
        sizes: list[dict[str, int]] = []

        def noted(*arguments: Any, sizes: list[dict[str, int]] = sizes) -> Classifier:
            model = sharded_copy(*arguments)
            sizes.append({key: value.to_local().numel() for key, value in model.named_parameters()})
            return model

        with mock.patch("train.training.sharded_copy", noted):
            result = TRAININGS[name](folder / name)
        (folder / f"{name}-{world().rank}.sizes").write_text(json.dumps(sizes))
        (folder / f"{name}-{world().rank}.json").write_text(result.model_dump_json())


def results(folder: Path, name: str) -> list[dict[str, Any]]:
    """What each process said of a training, without what depends on a clock."""
    found = [json.loads(file.read_text()) for file in sorted(folder.glob(f"{name}-?.json"))]
    for result in found:
        for epoch in result["epochs"]:
            del epoch["seconds"]
    return found
