"""A student learns the same with fused losses as with plain ones, however an update is split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs
from kernel_cases import interpreter
from text_models import TEXTS, text_classifier, tiny_folder

from kernels.distill_loss import distill_loss
from kernels.fuse import FuseOptions
from kernels.hidden_loss import hidden_loss
from kernels.runtime import interpreted
from serve.errors import UserError
from train import fused
from train.classifier import Classifier
from train.distill import DistillConfig, FeatureConfig, answers, encoders, maps
from train.distill.answers import answers_and_labels
from train.fit import fit
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.fused import losses_by_kernel
from train.fused_front import ALL_KINDS
from train.fusion import Fusion
from train.inputs import Inputs, TextInputs
from train.losses import LabelLoss
from train.sources import Items
from train.sources.base import UNLABELLED
from train.teaching import Teaching

pytestmark = interpreter
LABELS = tuple("abc")
GENERATOR = np.random.default_rng(0)
IMAGES, TARGETS = GENERATOR.integers(0, 256, (14, 8, 8, 3), dtype=np.uint8), GENERATOR.integers(0, 3, 14)
SGD = {"epochs": 2, "optimizer": "sgd", "learning_rate": 0.05, "precision": "fp32"}
SPLITS = {"whole": {"batch_size": 8}, "split": {"batch_size": 4, "accumulation": 2}}  # the last update of 6, unevenly


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fused losses as they are called in training; each that is right is kept, the network itself stays plain."""
    called: list[str] = []

    def counting(loss: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            if fused._rehearsal is None:
                called.append(loss.__name__)
            return loss(*arguments)

        return counted

    monkeypatch.setattr(answers, "distill_loss", counting(distill_loss))
    monkeypatch.setattr(encoders, "hidden_loss", counting(hidden_loss))
    monkeypatch.setattr(maps, "hidden_loss", counting(hidden_loss))
    monkeypatch.setattr(Fusion, "_unfit", lambda self, config: "a test of losses alone")
    monkeypatch.setattr(Fusion, "_options", lambda self, config: FuseOptions(force=True, kinds=ALL_KINDS))
    return called


def same_training(
    folder: Path, new: Callable[[], tuple[Classifier, Inputs, Teaching]], calls: list[str], **settings: Any
) -> set[str]:
    """Train four times, plainly and with fused losses, at once and split, and compare. Gives what was called."""
    results = {}
    for split, sizes in SPLITS.items():
        for kernels in ("off", "auto"):
            calls.clear()
            student, inputs, teaching = new()
            config = FitConfig(**SGD, **sizes, **settings, kernels=kernels)
            with interpreted():
                result = fit(student, config, inputs, inputs, 3, folder / f"{split}-{kernels}", teaching)
            assert bool(calls) == (kernels == "auto")
            results[split, kernels] = student.state_dict(), [epoch.loss for epoch in result.epochs]
    weights, losses = results.pop(("whole", "off"))
    fresh = new()[0].state_dict()
    assert any(not torch.allclose(weights[name], value, atol=1e-3) for name, value in fresh.items())
    for other, found in results.values():
        assert found == pytest.approx(losses, rel=1e-5)
        for name, value in weights.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)
    return set(calls)


@pytest.mark.parametrize("settings", [{"label_smoothing": 0.1}, {"class_weights": "balanced"}])
def test_answers_and_labels(tmp_path: Path, calls: list[str], settings: dict[str, Any]) -> None:
    def new() -> tuple[Classifier, Inputs, Teaching]:
        student, teacher = (image_classifier(IMAGES, LABELS, seed, "builtin:mlp-8") for seed in (1, 2))
        inputs = image_inputs(IMAGES, TARGETS)
        return student, inputs, Teaching(teacher, DistillConfig(temperature=3.0, alpha=0.7), inputs)

    assert same_training(tmp_path, new, calls, **settings) == {"distill_loss"}


def test_hidden_states_of_texts_whatever_is_padded(tmp_path: Path, calls: list[str]) -> None:
    folder = tiny_folder(tmp_path / "bert", layers=2, hidden_size=8, intermediate_size=12)

    def new() -> tuple[Classifier, Inputs, Teaching]:
        teacher = text_classifier(f"hf:{folder}")
        student = text_classifier("teacher-layers:1", teacher=teacher)
        for module in student.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        inputs = TextInputs(Items(list(TEXTS) * 2, np.arange(2 * len(TEXTS)) % 2), student.preparer())
        features = tuple(FeatureConfig(loss=loss, weight=2.0) for loss in ("hidden-states", "embeddings"))
        return student, inputs, Teaching(teacher, DistillConfig(features=features), inputs)

    assert same_training(tmp_path, new, calls) == {"distill_loss", "hidden_loss"}


def test_maps_of_images(tmp_path: Path, calls: list[str]) -> None:
    def new() -> tuple[Classifier, Inputs, Teaching]:
        student, teacher = (image_classifier(IMAGES, LABELS, seed, "builtin:cnn-4x8") for seed in (1, 2))
        for module in list(student.modules()):
            for name, child in module.named_children():
                if isinstance(child, torch.nn.BatchNorm2d):  # whose statistics depend on the split
                    setattr(module, name, torch.nn.Identity())
        inputs = image_inputs(IMAGES, TARGETS)
        config = DistillConfig(method="logits-mse", features=(FeatureConfig(loss="hints", weight=0.5),))
        return student, inputs, Teaching(teacher, config, inputs)

    assert same_training(tmp_path, new, calls) == {"hidden_loss"}


@pytest.mark.parametrize("alpha", [0.4, 1.0])
@pytest.mark.parametrize("labels", ["some", "mixed"])
def test_items_without_a_label_and_items_that_are_mixed(labels: str, alpha: float) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 3), torch.randn(6, 3)
    some = torch.tensor([0, UNLABELLED, 2, 1, UNLABELLED, 0])
    targets = some if labels == "some" else torch.rand(6, 3)
    config = DistillConfig(temperature=2.0, alpha=alpha)
    on_labels = LabelLoss(FitConfig(label_smoothing=0.1), LABELS, some.numpy())
    found = []
    for names in ((), ("soft targets", "soft targets and labels")):
        leaf = student.clone().requires_grad_()
        with interpreted(), losses_by_kernel(names):
            loss = answers_and_labels(leaf, teacher, targets, config, on_labels)
            loss.backward()
        found.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(found[1], found[0])


def test_other_losses_on_labels_than_plain_cross_entropy_stay_what_they_are() -> None:
    def smoothing(**settings: Any) -> float | None:
        return LabelLoss(FitConfig(**settings), LABELS, TARGETS).smoothing

    assert (smoothing(), smoothing(label_smoothing=0.2)) == (0.0, 0.2)
    assert smoothing(loss="focal") is smoothing(loss="mse") is smoothing(class_weights={"a": 2.0}) is None


def test_a_loss_that_becomes_no_number_ends_a_training_as_ever(tmp_path: Path, calls: list[str]) -> None:
    student, teacher = (image_classifier(IMAGES, LABELS, seed, "builtin:mlp-8") for seed in (1, 2))
    inputs = image_inputs(IMAGES, TARGETS)
    with torch.no_grad():
        next(teacher.parameters()).fill_(float("nan"))

    def train() -> FitResult:
        return fit(student, FitConfig(**SGD), inputs, inputs, 3, tmp_path, Teaching(teacher, DistillConfig(), inputs))

    with interpreted(), pytest.raises(UserError, match="the training loss became nan at update 1"):
        train()
    assert calls == []  # of a loss that is no number nothing can be said, so it stays plain
