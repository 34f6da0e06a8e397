"""Layers that do not count yet cost nothing and stay as they are; then they are copies; and a stop changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import image_models
import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs
from pydantic import ValidationError
from text_models import FAMILIES, TEXTS, text_classifier, tiny_folder
from transformers import TrainerControl, TrainerState, TrainingArguments

from serve.errors import UserError
from train.classifier import Classifier
from train.distill import DistillConfig
from train.epochs import EpochRecord, patience_is_over
from train.fit import fit
from train.fit_config import FitConfig, StackConfig
from train.fit_result import FitResult
from train.following import Following
from train.inputs import prepare_inputs
from train.sources import Items
from train.stacking import Stacking, stackable_layers
from train.teaching import Teaching

SPLIT = Items(TEXTS * 4, np.arange(24) % 2)
STACK = {"layers": [1, 2], "epochs": [1, 1]}


class StopError(Exception):
    """In the place of kill -9."""


def classifier(path: Path, family: str = "bert", layers: int = 4) -> Classifier:
    return text_classifier(f"hf:{tiny_folder(path, family, layers=layers)}")


def at_epoch(stacking: Stacking, path: Path, epoch: int) -> None:
    arguments = TrainingArguments(output_dir=str(path), report_to=[])
    stacking.on_epoch_begin(arguments, TrainerState(epoch=float(epoch)), TrainerControl())


def states(model: Classifier) -> list[dict[str, torch.Tensor]]:
    config = StackConfig(layers=(1,), epochs=(1,))
    return [
        {name: value.clone() for name, value in layer.state_dict().items()} for layer in stackable_layers(model, config)
    ]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_layers_alone_are_the_network_with_so_many_layers(tmp_path: Path, family: str) -> None:
    model = classifier(tmp_path / "model", family, layers=3)
    small = text_classifier("teacher-layers:2", teacher=model, take="first")
    ids = torch.from_numpy(model.preparer().prepare(TEXTS))
    with torch.no_grad():
        whole = model(ids)
        stacking = Stacking(model, StackConfig(layers=(2,), epochs=(1,)))
        at_epoch(stacking, tmp_path, 0)
        assert torch.equal(model(ids), small(ids))
        assert model.macs() == small.macs()
        stacking.close()
        assert torch.equal(model(ids), whole)


def test_image_transformers_too(tmp_path: Path) -> None:
    model = image_models.transformer(image_models.tiny_folder(tmp_path / "model", "vit", layers=3))
    small = image_models.image_model("teacher-layers:1", teacher=model, take="first")
    stacking = Stacking(model, StackConfig(layers=(1,), epochs=(1,)))
    at_epoch(stacking, tmp_path, 0)
    pixels = torch.from_numpy(image_models.IMAGES)
    with torch.no_grad():
        assert torch.equal(model(pixels), small(pixels))


def test_layers_are_copied_on_top_once_and_go_on_from_there(tmp_path: Path) -> None:
    model = classifier(tmp_path / "model", layers=5)
    first = states(model)
    stacking = Stacking(model, StackConfig(layers=(2, 4), epochs=(2, 1)))
    for epoch in (0, 1):
        at_epoch(stacking, tmp_path, epoch)
        assert all(equal(*pair) for pair in zip(states(model), first, strict=True))
    at_epoch(stacking, tmp_path, 2)
    assert [equal(layer, first[at % 2]) for at, layer in enumerate(states(model)[:4])] == [True] * 4
    assert equal(states(model)[4], first[4])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    moved = states(model)
    at_epoch(stacking, tmp_path, 3)
    after = states(model)
    assert equal(after[4], moved[0])
    assert all(equal(after[at], moved[at]) for at in range(4))
    at_epoch(stacking, tmp_path, 4)
    assert all(equal(*pair) for pair in zip(states(model), after, strict=True))


def trained(
    path: Path, folder: str, config: FitConfig, stop_after: int | None = None, layers: int | None = None
) -> tuple[Classifier, FitResult]:
    """Of a student with so many of a teacher's layers, or of the model itself."""

    def stop(record: EpochRecord, epochs: int) -> None:
        if stop_after is not None and record.epoch > stop_after:
            raise StopError

    model = classifier(path / "model")
    teaching = None
    if layers is not None:
        teacher, model = model, text_classifier(f"teacher-layers:{layers}", teacher=model)
        teaching = Teaching(teacher, DistillConfig(), prepare_inputs(SPLIT, teacher.preparer()))
    inputs = prepare_inputs(SPLIT, model.preparer())
    result = fit(model, config, inputs, inputs, 5, path / folder, teaching, following=Following(stop))
    return model, result


# within the growth, just before its end, after it
@pytest.mark.parametrize(("stop_after", "optimizer"), [(1, "adafactor"), (2, "adamw"), (3, "sgd")])
def test_a_stopped_training_ends_with_the_same_weights(tmp_path: Path, stop_after: int, optimizer: str) -> None:
    config = FitConfig.model_validate(
        {"epochs": 4, "batch_size": 8, "stack": STACK, "optimizer": optimizer, "learning_rate": 1e-2}
    )
    expected, whole = trained(tmp_path, "whole", config)
    with pytest.raises(StopError):
        trained(tmp_path, "cut", config, stop_after)
    found, resumed = trained(tmp_path, "cut", config)
    for name, value in expected.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name
    assert [epoch.loss for epoch in whole.epochs] == [epoch.loss for epoch in resumed.epochs]
    assert len({*map(_sum, states(found))}) == 4  # the copies learned on, each its own way
    assert not any("forward" in module.__dict__ for module in found.network.modules())


def test_a_penalty_leaves_layers_alone_that_do_not_count_yet(tmp_path: Path) -> None:
    """Else its gradient would move them, and stand in the norm that `clip` looks at."""
    seen: list[bool] = []
    before = states(classifier(tmp_path / "model"))
    model = classifier(tmp_path / "model")
    config = FitConfig.model_validate(
        {"epochs": 3, "batch_size": 24, "stack": {"layers": [2], "epochs": [2]}, "l1": 0.1, "learning_rate": 1e-2}
    )

    def look(record: EpochRecord, epochs: int) -> None:
        seen.append(all(equal(*pair) for pair in zip(states(model)[2:], before[2:], strict=True)))

    inputs = prepare_inputs(SPLIT, model.preparer())
    fit(model, config, inputs, inputs, 5, tmp_path / "fit", following=Following(look))
    assert seen == [True, True, False]
    assert all(parameter.requires_grad for parameter in model.parameters())


def _sum(state: dict[str, torch.Tensor]) -> float:
    return float(sum(value.sum() for value in state.values()))


def test_students_of_a_teachers_layers_too_and_the_best_epoch_is_one_with_all_layers(tmp_path: Path) -> None:
    config = FitConfig.model_validate({"epochs": 3, "batch_size": 8, "stack": STACK, "learning_rate": 1e-7})
    student, result = trained(tmp_path, "student", config, layers=3)
    assert len(states(student)) == 3
    assert [epoch.epoch for epoch in result.epochs] == [1, 2, 3]
    assert result.best_epoch == 3


def test_layers_that_recompute_are_stacked_alike(tmp_path: Path) -> None:
    settings = {"epochs": 3, "batch_size": 8, "stack": STACK}
    expected, _ = trained(tmp_path, "kept", FitConfig.model_validate(settings))
    config = FitConfig.model_validate({**settings, "gradient_checkpointing": True})
    found, _ = trained(tmp_path, "recomputed", config)
    for name, value in expected.state_dict().items():
        assert torch.allclose(value, found.state_dict()[name], atol=1e-5), name


def test_patience_begins_when_all_layers_are_there() -> None:
    config = FitConfig.model_validate({"epochs": 9, "patience": 2, "stack": STACK})

    def state(*accuracies: float) -> TrainerState:
        logs = [
            [{"epoch": at, "loss": 1.0, "seconds": 1.0}, {"epoch": at, "eval_accuracy": value, "eval_runtime": 1.0}]
            for at, value in enumerate(accuracies, start=1)
        ]
        return TrainerState(log_history=[entry for pair in logs for entry in pair])

    assert not patience_is_over(config, state(0.9, 0.8))
    assert not patience_is_over(config, state(0.9, 0.8, 0.7, 0.6))
    assert patience_is_over(config, state(0.9, 0.8, 0.7, 0.6, 0.6))


def test_what_has_no_layers_that_are_alike_is_refused(tmp_path: Path) -> None:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    config = FitConfig.model_validate({"epochs": 3, "stack": STACK})
    swin = image_models.transformer(image_models.tiny_folder(tmp_path / "swin", "swin"))
    for model in (image_classifier(images, ("a", "b"), model="builtin:resnet8"), swin):
        with pytest.raises(UserError, match="no stack of layers that are all alike"):
            fit(model, config, image_inputs(images), image_inputs(images), 0, tmp_path / "x")
    with pytest.raises(UserError, match=r"starts with 2 layers, but .* has 2 in all") as refused:
        stackable_layers(classifier(tmp_path / "bert", layers=2), StackConfig(layers=(1, 2), epochs=(1, 1)))
    assert "below 2" in refused.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stack": {"layers": [1, 2], "epochs": [1]}}, "go together"),
        ({"stack": {"layers": [2, 2], "epochs": [1, 1]}}, "must grow"),
        ({"stack": STACK, "epochs": 2}, "stack.epochs are 2 in all, of epochs = 2"),
        ({"stack": STACK, "ema": 0.9}, "does not go with ema"),
        ({"stack": STACK, "unfreeze": 1}, "does not go with unfreeze"),
        ({"stack": STACK, "train_layers": "head"}, "does not go with train_layers"),
        ({"stack": STACK, "compile": True}, "does not go with compile"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FitConfig.model_validate({"epochs": 5, **changes})
