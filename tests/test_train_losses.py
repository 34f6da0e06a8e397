from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.utils.class_weight import compute_class_weight

from serve.errors import UserError
from train.fit_config import FitConfig
from train.losses import LabelLoss, check_range, class_weights, cross_entropy, focal, squared_error
from train.sources.base import UNLABELLED

GENERATOR = np.random.default_rng(0)
LOGITS, LABELS = GENERATOR.normal(0, 3, (9, 5)), GENERATOR.integers(0, 5, 9)
WEIGHTS = GENERATOR.uniform(0.2, 3, 5)
ONE_HOT = np.eye(5)[LABELS]
SHARES = 0.7 * ONE_HOT + 0.3 * np.eye(5)[LABELS[::-1]]  # as of items that were mixed
Loss = Callable[..., torch.Tensor]
LOSSES: dict[str, Loss] = {
    "cross-entropy": lambda logits, labels, weights: cross_entropy(logits, labels, 0.0, weights),
    "smoothed": lambda logits, labels, weights: cross_entropy(logits, labels, 0.1, weights),
    "focal": lambda logits, labels, weights: focal(logits, labels, 1.5, weights),
    "mse": squared_error,
}
# The same over logits [N, K] and shares [N, K], in numpy.
EXPECTED: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cross-entropy": lambda log_p, shares: -(shares * WEIGHTS * log_p).sum(),
    "smoothed": lambda log_p, shares: -((0.9 * shares + 0.1 / 5) * WEIGHTS * log_p).sum(),
    "focal": lambda log_p, shares: -(shares * WEIGHTS * (1 - np.exp(log_p)) ** 1.5 * log_p).sum(),
}


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(LOGITS, requires_grad=True), torch.tensor(LABELS)


def test_label_smoothing_shares_the_label_out_evenly() -> None:
    logits, labels = tensors()
    log_p = log_softmax(LOGITS, axis=1)
    expected = -(0.8 * log_p[np.arange(9), LABELS] + 0.2 * log_p.mean(axis=1)).sum()
    assert cross_entropy(logits, labels, 0.2).item() == pytest.approx(expected)


@pytest.mark.parametrize("shares", [ONE_HOT, SHARES], ids=["labels", "shares"])
@pytest.mark.parametrize("name", EXPECTED)
def test_a_loss_of_probabilities_is_its_formula_with_each_class_weighed(name: str, shares: np.ndarray) -> None:
    logits, labels = tensors()
    targets = labels if shares is ONE_HOT else torch.tensor(shares)
    found = LOSSES[name](logits, targets, torch.tensor(WEIGHTS)).item()
    assert found == pytest.approx(EXPECTED[name](log_softmax(LOGITS, axis=1), shares))


@pytest.mark.parametrize("shares", [ONE_HOT, SHARES], ids=["labels", "shares"])
def test_the_squared_error_is_that_of_the_raw_logits(shares: np.ndarray) -> None:
    logits, labels = tensors()
    targets = labels if shares is ONE_HOT else torch.tensor(shares)
    expected = (((LOGITS - shares) ** 2).mean(axis=1) * (shares * WEIGHTS).sum(axis=1)).sum()
    assert squared_error(logits, targets, torch.tensor(WEIGHTS)).item() == pytest.approx(expected)


def test_focal_without_gamma_is_the_cross_entropy_and_with_it_heeds_the_hard_items_more() -> None:
    logits, labels = tensors()
    assert focal(logits, labels, 0.0).item() == pytest.approx(cross_entropy(logits, labels).item())
    sure, unsure = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    zero = torch.tensor([0])
    ratios = [(focal(unsure, zero, gamma) / focal(sure, zero, gamma)).item() for gamma in (0.0, 1.0, 2.0)]
    assert ratios == sorted(ratios)
    assert ratios[2] > 100 * ratios[0]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_has_a_gradient_where_the_answer_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    focal(logits, torch.tensor([0, 0]), gamma).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_the_parts_of_a_batch_add_up_to_that_of_the_whole(name: str, weighed: bool) -> None:
    logits, labels = tensors()
    weights = torch.tensor(WEIGHTS) if weighed else None
    parts = [LOSSES[name](logits[rows], labels[rows], weights) for rows in (slice(2), slice(2, 9))]
    assert sum(part.item() for part in parts) == pytest.approx(LOSSES[name](logits, labels, weights).item())


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    train = np.repeat(np.arange(3), [70, 20, 10])
    found = class_weights("balanced", ("a", "b", "c"), train)
    assert found == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=train), rel=1e-6)


def test_a_table_weighs_what_it_names_and_refuses_what_the_data_do_not_have() -> None:
    labels, train = ("ham", "spam"), np.array([0, 1])
    found = class_weights({"spam": 4.0}, labels, train)
    assert found is not None
    assert found.tolist() == [1.0, 4.0]
    assert class_weights(None, labels, train) is None
    with pytest.raises(UserError, match="no label 'spma'") as refused:
        class_weights({"spma": 4.0}, labels, train)
    assert "did you mean 'spam'" in refused.value.hint


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, lambda logits, labels: cross_entropy(logits, labels)),
        ({"label_smoothing": 0.1}, lambda logits, labels: cross_entropy(logits, labels, 0.1)),
        ({"loss": "focal", "focal_gamma": 3.0}, lambda logits, labels: focal(logits, labels, 3.0)),
        ({"loss": "mse"}, squared_error),
        (
            {"loss": "focal", "class_weights": {"b": 2.0}},
            lambda logits, labels: focal(logits, labels, 2.0, torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0])),
        ),
    ],
)
def test_the_recipe_chooses_the_loss(settings: dict[str, Any], expected: Loss) -> None:
    loss = LabelLoss(FitConfig(**settings), tuple("abcde"), LABELS)
    logits, labels = torch.tensor(LOGITS, dtype=torch.float32), torch.tensor(LABELS)
    assert loss(logits, labels).item() == pytest.approx(expected(logits, labels).item())


@pytest.mark.parametrize("label", [3, -2, 2**40])
def test_a_label_that_is_none_of_the_classifiers_is_refused(label: int) -> None:
    check_range(np.array([0, UNLABELLED, 2]), ("a", "b", "c"), "training")
    check_range(np.zeros(0, dtype=np.int64), ("a",), "validation")
    said = (
        f"training item 2 has the label {label}: expected 0 to 2, one of the 3 labels of the classifier, or -1 for none"
    )
    with pytest.raises(UserError, match=said) as refused:
        check_range(np.array([0, UNLABELLED, label, label]), ("a", "b", "c"), "training")
    assert refused.value.hint.startswith("labels count from 0")
