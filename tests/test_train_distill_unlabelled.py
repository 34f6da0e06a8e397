"""Items without a label in training: the losses on labels leave them out, the teacher's answers do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs
from scipy.special import softmax

from train.augment import AugmentConfig
from train.augment.mixing import targets
from train.classifier import Classifier
from train.distill import DistillConfig, FeatureConfig
from train.distill.answers import answers_loss
from train.distill.decoupled import decoupled
from train.fit import fit
from train.fit_config import FitConfig
from train.losses import LabelLoss
from train.sources.base import UNLABELLED
from train.teaching import Teaching

# -- losses --------------------------------------------------------------------------------------------------------

GENERATOR = np.random.default_rng(0)
STUDENT, TEACHER = (GENERATOR.normal(0, 2, (9, 4)) for _ in range(2))
MIXED = np.where(np.arange(9) % 3 == 0, UNLABELLED, GENERATOR.integers(0, 4, 9))
KNOWN = MIXED != UNLABELLED
CLASSES = tuple("abcd")


@pytest.mark.parametrize(
    "asked", [{}, {"label_smoothing": 0.2}, {"loss": "focal"}, {"loss": "mse"}, {"class_weights": "balanced"}]
)
def test_the_loss_on_labels_is_that_of_the_labelled_items_alone(asked: dict[str, Any]) -> None:
    settings = FitConfig(**asked)
    logits = torch.tensor(STUDENT, requires_grad=True)
    found = LabelLoss(settings, CLASSES, MIXED)(logits, torch.tensor(MIXED))
    alone = LabelLoss(settings, CLASSES, MIXED[KNOWN])(torch.tensor(STUDENT[KNOWN]), torch.tensor(MIXED[KNOWN]))
    assert found.item() == pytest.approx(alone.item())
    found.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad[~torch.tensor(KNOWN)] == 0).all()
    assert (logits.grad[torch.tensor(KNOWN)] != 0).any()


def test_a_batch_without_a_label_has_no_loss_on_labels() -> None:
    none = torch.full((9,), UNLABELLED)
    assert LabelLoss(FitConfig(), CLASSES, MIXED)(torch.tensor(STUDENT), none).item() == 0


def test_dkd_takes_the_teachers_first_choice_for_a_label_that_is_not_known() -> None:
    lesson = DistillConfig(method="dkd", temperature=2.0)
    student, teacher = torch.tensor(STUDENT), torch.tensor(TEACHER)
    filled = torch.tensor(np.where(KNOWN, MIXED, TEACHER.argmax(axis=1)))
    found = answers_loss(student, teacher, torch.tensor(MIXED), lesson)
    assert found.item() == pytest.approx(decoupled(student, teacher, filled, 2.0, 1.0, 8.0).item())


def test_an_item_mixed_with_one_that_has_no_label_counts_as_having_none() -> None:
    labels, others = np.array([0, 1, UNLABELLED, 2]), np.array([1, UNLABELLED, 3, 2])
    shares = targets(labels, others, np.array([0.75, 0.75, 0.25, 1.0], dtype=np.float32), 4)
    assert shares.tolist() == [[0.75, 0.25, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    smoothed = FitConfig(label_smoothing=0.1)
    logits = torch.tensor(STUDENT[:4], dtype=torch.float32)
    found = LabelLoss(smoothed, CLASSES, MIXED)(logits, torch.from_numpy(shares))
    alone = LabelLoss(smoothed, CLASSES, MIXED[KNOWN])(logits[[0, 3]], torch.from_numpy(shares[[0, 3]]))
    assert found.item() == pytest.approx(alone.item())


# -- training ------------------------------------------------------------------------------------------------------

IMAGES = GENERATOR.integers(0, 256, (104, 8, 8, 1), dtype=np.uint8)
LABELS = GENERATOR.integers(0, 4, 104)
PARTLY = np.where(np.arange(104) < 40, LABELS, UNLABELLED)
VALIDATION = image_inputs(IMAGES[:20], LABELS[:20])
LESSON = DistillConfig(temperature=2.0, alpha=0.6)
STEP = {"epochs": 1, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0, "warmup": 0, "clip": 0}
STEP |= {"schedule": "constant"}


def new(seed: int = 1, model: str = "builtin:mlp-16", **options: float) -> Classifier:
    return image_classifier(IMAGES, CLASSES, seed, model, **options)


def taught(
    folder: Path, labels: np.ndarray, lesson: DistillConfig = LESSON, model: str = "builtin:mlp-16", **asked: Any
) -> Classifier:
    student, train = new(model=model), image_inputs(IMAGES, labels)
    teacher = new(9, "builtin:mlp-24" if model.startswith("builtin:mlp") else model)
    fit(student, FitConfig(**{**STEP, **asked}), train, VALIDATION, 5, folder, Teaching(teacher, lesson, train))
    return student


def test_an_update_is_the_teacher_on_all_and_labels_on_those_that_have_one_by_all_items(tmp_path: Path) -> None:
    """One plain step by hand: 0.6 of T^2 KL on 104 items and 0.4 of the cross-entropy on 40, both by 104."""
    student = taught(tmp_path, PARTLY, batch_size=104)
    expected, teacher = new(), new(9, "builtin:mlp-24").eval()
    images = torch.from_numpy(IMAGES)
    ours = expected(images)
    with torch.no_grad():
        theirs = softmax(teacher(images).numpy() / 2, axis=1)
    log_ours = torch.log_softmax(ours / 2, dim=1)
    divergence = 4 * (torch.from_numpy(theirs) * (torch.from_numpy(theirs).log() - log_ours)).sum()
    on_labels = -torch.log_softmax(ours[:40], dim=1)[torch.arange(40), torch.from_numpy(LABELS[:40])].sum()
    ((0.6 * divergence + 0.4 * on_labels) / 104).backward()
    for mine, its in zip(student.parameters(), expected.parameters(), strict=True):
        assert its.grad is not None
        assert torch.allclose(mine, its - 0.1 * 1.9 * its.grad, atol=1e-6)


@pytest.mark.parametrize(("method", "augment"), [("soft-targets", {"mixup": 1.0, "cutmix": 1.0}), ("dkd", {})])
def test_accumulation_does_not_change_the_update(tmp_path: Path, method: str, augment: dict[str, float]) -> None:
    lesson = DistillConfig(method=method, alpha=0.6)  # type: ignore[arg-type]
    asked = {"augment": AugmentConfig(**augment)}  # type: ignore[arg-type]
    whole = taught(tmp_path / "whole", PARTLY, lesson, batch_size=32, **asked)
    split = taught(tmp_path / "split", PARTLY, lesson, batch_size=8, accumulation=4, **asked)
    start = new().state_dict()
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, split.state_dict()[name], atol=1e-5), name
    assert any(not torch.allclose(value, start[name], atol=1e-3) for name, value in whole.state_dict().items())


def test_features_learn_from_items_without_a_label(tmp_path: Path) -> None:
    lesson = DistillConfig(alpha=0.6, features=(FeatureConfig(loss="attention-maps", weight=100.0),))
    none = np.full(104, UNLABELLED)
    with_features = taught(tmp_path / "a", none, lesson, "builtin:cnn-8", batch_size=52)
    without = taught(tmp_path / "b", none, DistillConfig(alpha=0.6), "builtin:cnn-8", batch_size=52)
    assert any(not torch.equal(value, without.state_dict()[name]) for name, value in with_features.state_dict().items())


def test_with_alpha_1_no_label_reaches_the_student(tmp_path: Path) -> None:
    lesson = DistillConfig(alpha=1.0)
    students = [
        taught(tmp_path / name, labels, lesson, batch_size=52)
        for name, labels in (("a", LABELS), ("b", GENERATOR.permutation(LABELS)), ("c", np.full(104, UNLABELLED)))
    ]
    first = students[0].state_dict()
    for other in students[1:]:
        assert all(torch.equal(value, first[name]) for name, value in other.state_dict().items())
    some = taught(tmp_path / "d", GENERATOR.permutation(LABELS), LESSON, batch_size=52)
    assert any(not torch.equal(value, first[name]) for name, value in some.state_dict().items())
