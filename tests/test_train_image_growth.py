"""Images that grow over the epochs: for networks that take any size, seen alike by student and teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import image_models
import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs
from pydantic import ValidationError

from serve.errors import UserError
from train.augment import AugmentConfig
from train.classifier import Classifier
from train.distill import DistillConfig
from train.epochs import EpochRecord
from train.fit import fit
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.following import Following
from train.image_growth import ImageGrowth, check_growth, resized
from train.teaching import Teaching
from train.views import View

RANDOM = np.random.default_rng(0)
IMAGES, TARGETS = RANDOM.integers(0, 256, (40, 16, 12, 3), dtype=np.uint8), RANDOM.integers(0, 2, 40)
INPUTS = image_inputs(IMAGES, TARGETS)
GROWING = {"epochs": 4, "batch_size": 16, "grow_images": [0.5, 1.0]}
LABELS = ("a", "b")


class StopError(Exception):
    """In the place of kill -9."""


def test_each_size_has_as_many_epochs_and_the_last_is_the_full_one() -> None:
    growth = ImageGrowth((0.5, 0.75, 1.0), epochs=7)
    assert [growth.scale(epoch) for epoch in range(8)] == [0.5, 0.5, 0.5, 0.75, 0.75, 1.0, 1.0, 1.0]
    assert ImageGrowth((0.5, 0.75, 1.0), epochs=3).scale(2) == 1.0


def test_images_are_resized_as_pillow_would() -> None:
    from PIL import Image

    smooth = np.kron(RANDOM.integers(0, 256, (2, 4, 3, 3), dtype=np.uint8), np.ones((1, 8, 8, 1), np.uint8))
    small = resized(smooth, 0.5)
    assert small.shape == (2, 16, 12, 3)
    assert small.dtype == np.uint8
    for image, own in zip(smooth, small, strict=True):
        expected = np.asarray(Image.fromarray(image).resize((12, 16), Image.Resampling.BILINEAR))
        assert np.abs(own.astype(int) - expected).max() <= 1
    assert resized(smooth, 1.0) is smooth


def test_a_view_grows_with_its_epoch_after_all_other_changes() -> None:
    growth = ImageGrowth((0.5, 1.0), epochs=4)
    view = View(INPUTS, AugmentConfig(flip=True, mixup=1.0), 3, classes=2, growth=growth)
    full = View(INPUTS, AugmentConfig(flip=True, mixup=1.0), 3, classes=2)
    for epoch, side in ((0, 8), (1, 8), (2, 16), (3, 16)):
        view.epoch = full.epoch = epoch
        seen, whole = view.__getitems__([4, 1]), full.__getitems__([4, 1])
        assert seen["inputs"].shape[1:] == (side, side * 3 // 4, 3)
        assert np.array_equal(seen["inputs"].numpy(), resized(whole["inputs"].numpy(), side / 16))
        assert torch.equal(seen["targets"], whole["targets"])


def model(name: str = "builtin:resnet8") -> Classifier:
    return image_classifier(IMAGES, LABELS, model=name)


def trained(folder: Path, config: FitConfig, seen: list[Any], stop_after: int | None = None) -> tuple[Any, FitResult]:
    def stop(record: EpochRecord, epochs: int) -> None:
        if stop_after is not None and record.epoch > stop_after:
            raise StopError

    student, teacher = model(), model("builtin:resnet14")
    for name, network in (("student", student), ("teacher", teacher)):
        network.network.register_forward_pre_hook(
            lambda module, inputs, name=name: seen.append((name, module.training, tuple(inputs[0].shape[2:])))
        )
    result = fit(
        student,
        config,
        INPUTS,
        INPUTS,
        5,
        folder,
        Teaching(teacher, DistillConfig(), INPUTS),
        following=Following(stop),
    )
    return student.state_dict(), result


def test_student_and_teacher_see_the_same_size_and_validation_is_whole(tmp_path: Path) -> None:
    seen: list[Any] = []
    trained(tmp_path, FitConfig.model_validate({**GROWING, "epochs": 2}), seen)
    learning = [size for name, training, size in seen if name == "student" and training]
    assert learning == [(8, 6)] * 3 + [(16, 12)] * 3
    batches = [at for at, (name, training, _) in enumerate(seen) if name == "student" and training]
    asked = [next(entry for entry in seen[at:] if entry[0] == "teacher") for at in batches]
    assert [size for _, _, size in asked] == learning
    first = batches[0]
    judged = [size for name, training, size in seen[first:] if name == "student" and not training]
    assert set(judged) == {(16, 12)}


def test_a_stopped_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    config = FitConfig.model_validate(GROWING)
    expected, whole = trained(tmp_path / "whole", config, [])
    with pytest.raises(StopError):
        trained(tmp_path / "cut", config, [], stop_after=1)
    found, resumed = trained(tmp_path / "cut", config, [])
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert [epoch.loss for epoch in whole.epochs] == [epoch.loss for epoch in resumed.epochs]


def test_patience_begins_with_the_whole_images(tmp_path: Path) -> None:
    learns_nothing = {"learning_rate": 1e-12, "ema": None, "schedule": "constant"}
    config = FitConfig.model_validate(
        {**GROWING, "epochs": 7, "grow_images": [0.5, 1.0], **learns_nothing, "patience": 1, "threshold": 0.9}
    )
    seen: list[Any] = []
    _, result = trained(tmp_path, config, seen)
    sizes = {size for name, training, size in seen if name == "student" and training}
    assert [epoch.epoch for epoch in result.epochs] == [1, 2, 3, 4, 5, 6]  # the first four are of small ones
    assert sizes == {(8, 6), (16, 12)}


def test_a_small_image_may_still_have_made_the_best_epoch() -> None:
    config = FitConfig.model_validate({"epochs": 4, "grow_images": [0.5, 0.75, 1.0]})
    growth = ImageGrowth(config.grow_images, config.epochs)
    assert [growth.scale(epoch) < 1.0 for epoch in range(4)] == [epoch < config.small_epochs for epoch in range(4)]
    assert config.growing_epochs == 0


def test_networks_for_one_size_are_refused(tmp_path: Path) -> None:
    config = FitConfig.model_validate(GROWING)
    vit = image_models.transformer(image_models.tiny_folder(tmp_path / "vit"), LABELS)
    for refused in (model("builtin:mlp-8"), model("builtin:cnn-4"), vit):
        with pytest.raises(UserError, match="does not take images of"):
            check_growth(config, refused)
    check_growth(config, model())
    check_growth(config, image_models.transformer(image_models.tiny_folder(tmp_path / "resnet", "resnet"), LABELS))
    teaching = Teaching(model("builtin:mlp-8"), DistillConfig(), INPUTS)
    with pytest.raises(UserError, match="'builtin:mlp-8' does not take images of 6x8 pixels"):
        fit(model(), config, INPUTS, INPUTS, 0, tmp_path / "x", teaching)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grow_images": [0.5]}, "must rise to 1.0"),
        ({"grow_images": [1.0]}, "must rise to 1.0"),
        ({"grow_images": [0.8, 0.5, 1.0]}, "must rise to 1.0"),
        ({"grow_images": [0.5, 1.0], "epochs": 1}, "names 2 sizes, but epochs = 1"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FitConfig.model_validate(changes)
