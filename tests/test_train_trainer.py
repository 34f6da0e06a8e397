from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs

from serve.errors import UserError
from train.augment import AugmentConfig
from train.classifier import Classifier, load_classifier
from train.distill import DistillConfig
from train.fit import fit
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.following import Following
from train.teaching import Teaching
from train.views import View

GENERATOR = np.random.default_rng(0)
LABELS = tuple("abcd")
# 104 items in batches of 32: the last update is smaller, and its micro-batches of 8 are fewer than the others'.
IMAGES, TARGETS = GENERATOR.integers(0, 256, (104, 8, 8, 1), dtype=np.uint8), GENERATOR.integers(0, 4, 104)
TRAIN, VALIDATION = image_inputs(IMAGES, TARGETS), image_inputs(IMAGES[:20], TARGETS[:20])
DISTILL = DistillConfig(temperature=3.0, alpha=0.7)


def new(model: str = "builtin:mlp-16", seed: int = 1, **options: float) -> Classifier:
    return image_classifier(IMAGES, LABELS, seed, model, **options)


def trained(
    folder: Path, config: FitConfig, teacher: Classifier | None = None, student: Classifier | None = None
) -> tuple[Classifier, FitResult]:
    student = student or new()
    result = fit(student, config, TRAIN, VALIDATION, 5, folder, teacher and Teaching(teacher, DISTILL, TRAIN))
    return student, result


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize(
    "asked",
    [
        {"label_smoothing": 0.1},
        {"class_weights": "balanced", "l1": 0.01},
        {"loss": "focal", "class_weights": {"a": 5.0}},
        {"loss": "mse", "class_weights": {"b": 0.2}},
    ],
)
def test_accumulation_does_not_change_the_update(tmp_path: Path, asked: dict[str, Any], taught: bool) -> None:
    common = {"epochs": 2, "optimizer": "sgd", "learning_rate": 0.05, "clip": 0.5, **asked}
    teacher = new("builtin:mlp-24", seed=9) if taught else None
    whole, one = trained(tmp_path / "whole", FitConfig(batch_size=32, **common), teacher)
    split, many = trained(tmp_path / "split", FitConfig(batch_size=8, accumulation=4, **common), teacher)
    before = new().state_dict()
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, split.state_dict()[name], atol=1e-6), name
    assert not torch.allclose(whole.network.layers[2].weight, before["network.layers.2.weight"], atol=1e-3)
    losses = [[epoch.loss for epoch in result.epochs] for result in (one, many)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_the_first_update_is_the_gradient_of_the_mean_loss(tmp_path: Path) -> None:
    """One plain step by hand: no warmup, no decay, Nesterov's first step is (1 + momentum) times the gradient."""
    config = FitConfig(
        epochs=1,
        batch_size=104,
        optimizer="sgd",
        learning_rate=0.1,
        weight_decay=0,
        warmup=0,
        clip=0,
        schedule="constant",
    )
    student, result = trained(tmp_path, config)
    expected = new()
    loss = torch.nn.functional.cross_entropy(expected(torch.from_numpy(IMAGES)), torch.from_numpy(TARGETS))
    loss.backward()
    for ours, theirs in zip(student.parameters(), expected.parameters(), strict=True):
        assert theirs.grad is not None
        assert torch.allclose(ours, theirs - 0.1 * 1.9 * theirs.grad, atol=1e-6)
    assert result.epochs[0].loss == pytest.approx(loss.item(), abs=1e-5)


def test_the_l1_penalty_pulls_weights_and_not_biases_towards_zero(tmp_path: Path) -> None:
    """One step as above, with the penalty's gradient, which is the sign of a weight."""
    settings = {"epochs": 1, "batch_size": 104, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0}
    plain = {"warmup": 0, "clip": 0, "schedule": "constant"}
    student, _ = trained(tmp_path, FitConfig(**settings, **plain, l1=0.03))
    expected = new()
    torch.nn.functional.cross_entropy(expected(torch.from_numpy(IMAGES)), torch.from_numpy(TARGETS)).backward()
    for (name, ours), theirs in zip(student.named_parameters(), expected.parameters(), strict=True):
        assert theirs.grad is not None
        pull = 0.03 * theirs.sign() if name.endswith("weight") else 0.0
        assert torch.allclose(ours, theirs - 0.1 * 1.9 * (theirs.grad + pull), atol=1e-6), name


def test_weights_of_classes_that_the_data_do_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no label 'z'"):
        trained(tmp_path, FitConfig(class_weights={"z": 2.0}))


def test_mixed_items_are_learned_by_what_is_in_them_however_an_update_is_cut(tmp_path: Path) -> None:
    common = {"epochs": 1, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0, "warmup": 0, "clip": 0}
    common |= {"schedule": "constant", "augment": AugmentConfig(mixup=1.0, cutmix=1.0, shift=1)}
    whole, result = trained(tmp_path / "whole", FitConfig(batch_size=104, **common))
    split, _ = trained(tmp_path / "split", FitConfig(batch_size=26, accumulation=4, **common))
    batch = View(TRAIN, common["augment"], 5, classes=4).__getitems__(list(range(104)))
    expected = new()
    shares = -(batch["targets"] * expected(batch["inputs"]).log_softmax(dim=1)).sum(dim=1)
    shares.mean().backward()
    for ours, cut, theirs in zip(whole.parameters(), split.parameters(), expected.parameters(), strict=True):
        assert theirs.grad is not None
        assert torch.allclose(ours, theirs - 0.1 * 1.9 * theirs.grad, atol=1e-6)
        assert torch.allclose(ours, cut, atol=1e-6)
    assert result.epochs[0].loss == pytest.approx(shares.mean().item(), abs=1e-5)


@pytest.mark.parametrize("augment", [AugmentConfig(shift=2), AugmentConfig(mixup=1.0)])
def test_the_teacher_sees_what_the_student_sees_and_stays_as_it_was(tmp_path: Path, augment: AugmentConfig) -> None:
    teacher, student = new("builtin:cnn-4", seed=9, dropout=0.5), new()
    seen: dict[str, list[torch.Tensor]] = {"teacher": [], "student": []}
    modes = set()

    def watch(name: str, module: Classifier) -> None:
        def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if name == "teacher":
                modes.add(module.training)
                assert not torch.is_grad_enabled()
            if name == "teacher" or module.training:
                seen[name].append(inputs[0].clone())

        module.register_forward_pre_hook(note)

    watch("teacher", teacher)
    watch("student", student)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    trained(tmp_path, FitConfig(epochs=2, batch_size=32, augment=augment), teacher.train(), student)
    assert modes == {False}
    assert len(seen["teacher"]) == 8  # four batches in each of two epochs, none in evaluation
    assert all(torch.equal(one, other) for one, other in zip(seen["teacher"], seen["student"], strict=True))
    assert not torch.equal(torch.cat(seen["teacher"][:4]).sort(0)[0], torch.from_numpy(IMAGES).sort(0)[0])
    for name, tensor in teacher.state_dict().items():  # batch norm's running statistics among them
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_student_learns_its_teachers_answers_and_not_the_labels(tmp_path: Path) -> None:
    teacher, student = new("builtin:mlp-24", seed=9).eval(), new()
    with torch.no_grad():
        theirs = teacher(torch.from_numpy(IMAGES)).argmax(dim=1).numpy()
    config = FitConfig(epochs=40, batch_size=32, learning_rate=1e-2)
    teaching = Teaching(teacher, DistillConfig(alpha=1.0), TRAIN)
    result = fit(student, config, TRAIN, image_inputs(IMAGES, theirs), 5, tmp_path, teaching)
    assert max(epoch.accuracy for epoch in result.epochs) > 0.9
    assert (
        theirs == TARGETS
    ).mean() < 0.5  # the labels are random: agreeing with the teacher is not agreeing with them


def test_a_loss_that_is_no_number_stops_with_advice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the training loss became (nan|inf) at update \d+") as stopped:
        trained(tmp_path, FitConfig(epochs=3, batch_size=32, optimizer="sgd", learning_rate=1e30, clip=0, warmup=0))
    assert "learning_rate" in stopped.value.hint
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("origins", [None, [f"photos/{row}.jpg" for row in range(len(IMAGES))]])
def test_a_loss_that_is_no_number_names_the_items_of_its_batch(tmp_path: Path, origins: list[str] | None) -> None:
    student = new()
    seen: list[torch.Tensor] = []

    def spoil(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], logits: torch.Tensor) -> torch.Tensor:
        if module.training:  # the multiplications are counted on an example before
            seen.append(inputs[0])
        return logits * (float("nan") if len(seen) == 3 else 1.0)

    student.register_forward_hook(spoil)
    with pytest.raises(UserError, match="became nan at update 3, on ") as stopped:
        fit(student, FitConfig(epochs=1, batch_size=8), TRAIN, VALIDATION, 5, tmp_path, origins=origins)
    named = [int(row) for row in re.findall(r"(?:photos/|training item )(\d+)", stopped.value.message)]
    assert torch.equal(torch.from_numpy(IMAGES[named]), seen[2][:5])
    assert stopped.value.message.endswith(" and 3 more")


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    student, result = trained(tmp_path, FitConfig(epochs=6, batch_size=32, learning_rate=3e-2))
    accuracies = [epoch.accuracy for epoch in result.epochs]
    assert result.best_epoch == 1 + accuracies.index(max(accuracies))
    kept = load_classifier(tmp_path)
    assert all(torch.equal(tensor, kept.state_dict()[name]) for name, tensor in student.state_dict().items())
    with torch.no_grad():
        right = kept(torch.from_numpy(VALIDATION.images)).argmax(dim=1).numpy() == VALIDATION.labels
    assert right.mean() == pytest.approx(max(accuracies))


def test_patience_ends_training_that_gets_no_better(tmp_path: Path) -> None:
    config = FitConfig(epochs=30, batch_size=104, learning_rate=1e-9, patience=2)
    _, result = trained(tmp_path, config)
    assert (len(result.epochs), result.best_epoch) == (3, 1)


def test_a_patience_that_comes_too_late_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    config = FitConfig(epochs=2, batch_size=104, patience=1)
    fit(new(), config, TRAIN, VALIDATION, 5, tmp_path, following=Following(say=told.append))
    assert any(text.startswith("fit.patience = 1 cannot end a training of 2 epochs early") for text in told)


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path, schedule: str) -> None:
    config = FitConfig(epochs=1, batch_size=32, schedule=schedule, augment=AugmentConfig(shift=1))
    one, two = (trained(tmp_path / name, config, student=new(dropout=0.3))[0] for name in ("one", "two"))
    other = new(dropout=0.3)
    fit(other, config, TRAIN, VALIDATION, 6, tmp_path / "other")
    weights = [model.network.layers[2].weight for model in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_batch_norm_never_sees_a_single_image(tmp_path: Path) -> None:
    """Its deviation over one image and a map of one pixel would be that of one number: torch refuses."""
    config = FitConfig(epochs=1, batch_size=8)
    train = image_inputs(IMAGES[:25], TARGETS[:25])
    student = new("torchvision:shufflenet_v2_x0_5", image_size=32)
    result = fit(student, config, train, image_inputs(IMAGES[:4], TARGETS[:4]), 5, tmp_path)
    assert len(result.epochs) == 1


def test_bf16_multiplies_in_bf16_teacher_too_and_leaves_plain_fp32_behind(tmp_path: Path) -> None:
    teacher, student = new("builtin:cnn-4", seed=9), new("builtin:cnn-4")
    seen: dict[tuple[str, bool], set[torch.dtype]] = defaultdict(set)
    for name, model in (("teacher", teacher), ("student", student)):
        first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
        first.register_forward_hook(lambda module, _, output, name=name: seen[name, module.training].add(output.dtype))
    config = FitConfig(epochs=2, batch_size=32, precision="bf16", augment=AugmentConfig(shift=1))
    said: list[str] = []
    result = fit(
        student,
        config,
        TRAIN,
        VALIDATION,
        5,
        tmp_path,
        Teaching(teacher, DISTILL, TRAIN),
        following=Following(say=said.append),
    )
    assert seen["teacher", False] == seen["student", True] == {torch.bfloat16}
    assert (result.precision, said[0]) == ("bf16", "training in bf16: as the recipe says")
    assert all(parameter.dtype == torch.float32 for parameter in student.parameters())
    seen.clear()
    ours = student.eval()(torch.from_numpy(IMAGES))
    assert seen["student", False] == {torch.float32}  # no autocast is left on it: it is exported as it is
    assert torch.equal(ours, load_classifier(tmp_path)(torch.from_numpy(IMAGES)))
