"""The losses on answers besides soft targets, each against numpy and scipy, and their options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import softmax
from scipy.stats import entropy, pearsonr

from serve.errors import UserError
from train.distill import DistillConfig, FeatureConfig
from train.distill.answers import answers_loss
from train.distill.correlated import correlated
from train.distill.decoupled import decoupled
from train.distill.logits import logits_mse, soft_targets

GENERATOR = np.random.default_rng(0)
STUDENT, TEACHER = (GENERATOR.normal(0, 3, (9, 5)) for _ in range(2))
LABELS = GENERATOR.integers(0, 5, 9)
ROWS = np.arange(9)


def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.tensor(STUDENT, requires_grad=True), torch.tensor(TEACHER), torch.tensor(LABELS)


def test_logits_are_compared_by_their_mean_squared_difference() -> None:
    student, teacher, _ = tensors()
    assert logits_mse(student, teacher).item() == pytest.approx(((STUDENT - TEACHER) ** 2).sum() / 5)


def test_soft_targets_tend_to_half_of_it_at_high_temperature_if_logits_are_centred() -> None:
    student, teacher = (torch.tensor(logits - logits.mean(1, keepdims=True)) for logits in (STUDENT, TEACHER))
    assert soft_targets(student, teacher, 1e4).item() == pytest.approx(
        logits_mse(student, teacher).item() / 2, rel=1e-3
    )


def parts(logits: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """[N, 2] the label's probability and the rest; [N, K - 1] how the rest is spread."""
    p = softmax(logits / temperature, axis=1)
    label = p[ROWS, LABELS]
    others = np.array([np.delete(row, own) for row, own in zip(p, LABELS, strict=True)])
    return np.stack([label, 1 - label], axis=1), others / others.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("target", "rest"), [(1.0, 8.0), (1.0, 0.0), (0.0, 0.5)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dkd_weighs_the_label_and_the_rest_apart(target: float, rest: float, temperature: float) -> None:
    student, teacher, labels = tensors()
    (mine, my_rest), (its, its_rest) = parts(STUDENT, temperature), parts(TEACHER, temperature)
    divergences = target * entropy(its, mine, axis=1) + rest * entropy(its_rest, my_rest, axis=1)
    loss = decoupled(student, teacher, labels, temperature, target, rest)
    assert loss.item() == pytest.approx(temperature**2 * divergences.sum())


def test_soft_targets_are_dkd_with_the_rest_weighed_by_what_the_teacher_leaves_it() -> None:
    student, teacher, labels = tensors()
    left = 1 - softmax(TEACHER, axis=1)[ROWS, LABELS]  # the paper's reformulation of KL
    whole = sum(
        decoupled(student[n : n + 1], teacher[n : n + 1], labels[n : n + 1], 1.0, 1.0, left[n]).item() for n in range(9)
    )
    assert whole == pytest.approx(soft_targets(student, teacher, 1.0).item())


def test_dkd_with_sure_answers_stays_a_number() -> None:
    student = torch.tensor([[0.0, 0.0, 0.0]], requires_grad=True)
    loss = decoupled(student, torch.tensor([[500.0, 0.0, 0.0]]), torch.tensor([0]), 1.0, 1.0, 8.0)
    loss.backward()
    assert student.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(
    ("nothing", "enough"),
    [
        ({"method": "dist", "intra_weight": 0}, {"method": "dist", "intra_weight": 0.1}),
        ({"method": "dkd", "target_weight": 0}, {"method": "dkd", "target_weight": 0.1}),
    ],
)
def test_what_teaches_nothing_where_there_are_two_classes_is_refused(nothing: Any, enough: Any) -> None:
    teacher, labels = torch.tensor([[2.0, 1.0], [0.0, 3.0], [0.5, 0.4]]), torch.tensor([0, 1, 0])
    steps = []
    for options in (nothing, enough):
        student = torch.tensor([[1.0, 0.0], [0.3, 0.1], [0.0, 1.0]]).requires_grad_()
        answers_loss(student, teacher, labels, DistillConfig(**options)).backward()
        assert student.grad is not None
        steps.append(student.grad.abs().max().item())
    assert steps[0] < 1e-4 < 1e-2 < steps[1]
    with pytest.raises(UserError, match="nothing would be learned") as refused:
        DistillConfig(**nothing).check_classes(2)
    assert "raise" in refused.value.hint
    DistillConfig(**nothing).check_classes(3)
    DistillConfig(**enough).check_classes(2)


@pytest.mark.parametrize(("inter", "intra"), [(1.0, 1.0), (2.0, 0.0), (0.0, 0.5)])
def test_dist_compares_correlations_over_classes_and_over_items(inter: float, intra: float) -> None:
    student, teacher, _ = tensors()
    p, q = softmax(STUDENT / 2, axis=1), softmax(TEACHER / 2, axis=1)
    over_classes = [1 - pearsonr(p[n], q[n])[0] for n in range(9)]
    over_items = [1 - pearsonr(p[:, k], q[:, k])[0] for k in range(5)]
    expected = 4 * 9 * (inter * np.mean(over_classes) + intra * np.mean(over_items))
    assert correlated(student, teacher, 2.0, inter, intra).item() == pytest.approx(expected)


def test_dist_with_one_item_or_equal_answers_stays_a_number() -> None:
    for rows in (torch.tensor([[1.0, 2.0, 0.0]]), torch.zeros(4, 3)):
        student = rows.clone().requires_grad_()
        loss = correlated(student, torch.tensor([[3.0, 2.0, 0.0]]).expand(len(rows), 3), 1.0, 1.0, 1.0)
        loss.backward()
        assert student.grad is not None
        assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("method", ["soft-targets", "logits-mse", "dkd", "dist"])
def test_each_method_teaches_its_own_loss(method: str) -> None:
    student, teacher, labels = tensors()
    config = DistillConfig(method=method)  # type: ignore[arg-type]
    expected = {
        "soft-targets": soft_targets(student, teacher, 4.0),
        "logits-mse": logits_mse(student, teacher),
        "dkd": decoupled(student, teacher, labels, 4.0, 1.0, 8.0),
        "dist": correlated(student, teacher, 4.0, 1.0, 1.0),
    }
    assert answers_loss(student, teacher, labels, config).item() == expected[method].item()


@pytest.mark.parametrize("method", ["soft-targets", "logits-mse", "dkd"])
def test_parts_of_a_batch_add_up(method: str) -> None:
    student, teacher, labels = tensors()
    config = DistillConfig(method=method)  # type: ignore[arg-type]
    some = [answers_loss(student[at], teacher[at], labels[at], config).item() for at in (slice(0, 2), slice(2, 9))]
    assert sum(some) == pytest.approx(answers_loss(student, teacher, labels, config).item())


def test_what_compares_items_needs_them_in_one_batch() -> None:
    with pytest.raises(UserError, match="compares all items of an update") as refused:
        DistillConfig(method="dist").check_accumulation(2)
    assert "intra_weight = 0" in refused.value.hint
    DistillConfig(method="dist").check_accumulation(1)
    DistillConfig(method="dkd").check_accumulation(2)
    apart = DistillConfig(method="dist", intra_weight=0)
    apart.check_accumulation(2)
    student, teacher, labels = tensors()
    some = [answers_loss(student[at], teacher[at], labels[at], apart).item() for at in (slice(0, 2), slice(2, 9))]
    assert sum(some) == pytest.approx(answers_loss(student, teacher, labels, apart).item())


def test_dkd_refuses_mixed_items() -> None:
    student, teacher, labels = tensors()
    shares = torch.nn.functional.one_hot(labels, 5).double()
    with pytest.raises(UserError, match="one label for each item"):
        answers_loss(student, teacher, shares, DistillConfig(method="dkd"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "logits-mse", "temperature": 2.0}, "temperature is an option of .*dist"),
        ({"rest_weight": 2.0}, "rest_weight is an option of 'dkd', not of method = 'soft-targets'"),
        ({"method": "dkd", "intra_weight": 2.0}, "intra_weight is an option of 'dist'"),
        ({"method": "dkd", "target_weight": 0, "rest_weight": 0}, "nothing is learned"),
        ({"method": "dist", "inter_weight": 0, "intra_weight": 0}, "nothing is learned"),
        ({"features": [{"loss": "hints", "weight": 1}] * 2}, "the same entry twice"),
        ({"features": [{"loss": "embeddings", "weight": 1, "layers": "last"}]}, "one layer of embeddings"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DistillConfig.model_validate(options)


@pytest.mark.parametrize("method", ["soft-targets", "logits-mse", "dkd", "dist"])
def test_a_dump_reads_back_and_holds_only_what_counts(method: str) -> None:
    features = (FeatureConfig(loss="hints", weight=1.0, layers=((0, 1), (2, 2))),)
    config = DistillConfig(method=method, features=features)  # type: ignore[arg-type]
    assert DistillConfig.model_validate(config.model_dump(mode="json")) == config
    always = {"method", "alpha", "features", "teachers", "teacher_weights", "items"}
    assert set(DistillConfig().model_dump()) == {*always, "temperature"}
