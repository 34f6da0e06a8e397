"""Each optimizer's first update against its formula, and what decays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers.optimization import Adafactor

from train.fit_config import FitConfig
from train.optimizers import decays, l1_norm, new_optimizer

RATE, DECAY = 0.01, 0.3
Array = torch.Tensor


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.LayerNorm(4), nn.Linear(4, 3)).double()


def stepped(optimizer: str, gradients: bool = True) -> list[tuple[str, Array, Array, Array]]:
    """Name, value before, gradient and value after one update, of each parameter."""
    model = network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) if gradients else torch.zeros_like(parameter)
    config = FitConfig(optimizer=optimizer, learning_rate=RATE, weight_decay=DECAY)
    new_optimizer(config, model).step()
    named = model.named_parameters()
    return [(name, old, now.grad, now.detach()) for (name, now), old in zip(named, before, strict=True)]


def adafactor(w: Array, g: Array, decay: float) -> Array:
    """Shazeer & Stern 2018, algorithm 4 at its first step: of a matrix the squares' means over rows and columns."""
    squares = g**2 + 1e-30
    if w.ndim > 1:
        rows, columns = squares.mean(1, keepdim=True), squares.mean(0, keepdim=True)
        squares = rows * columns / rows.mean()
    update = g / squares.sqrt()
    return w - RATE * decay * w - RATE * update / max(1.0, float(update.pow(2).mean().sqrt()))


# From weights, gradient and decay to the weights after the first update; the means of adam are g and g^2 once unbiased.
FORMULAS: dict[str, Callable[[Array, Array, float], Array]] = {
    "adamw": lambda w, g, decay: w - RATE * decay * w - RATE * g / (g.abs() + 1e-8),
    "adam": lambda w, g, decay: w - RATE * (g + decay * w) / ((g + decay * w).abs() + 1e-8),
    "sgd": lambda w, g, decay: w - RATE * 1.9 * (g + decay * w),
    "rmsprop": lambda w, g, decay: w - RATE * (g + decay * w) / (0.1 * (g + decay * w).abs() + 1e-8),
    "adagrad": lambda w, g, decay: w - RATE * (g + decay * w) / ((g + decay * w).abs() + 1e-10),
    "adafactor": adafactor,
}


@pytest.mark.parametrize("optimizer", FORMULAS)
def test_the_first_update_is_the_formula_with_decay_on_weights_alone(optimizer: str) -> None:
    for name, before, gradient, after in stepped(optimizer):
        decay = DECAY if name in ("0.weight", "3.weight") else 0.0
        assert torch.allclose(after, FORMULAS[optimizer](before, gradient, decay), atol=1e-6), name


@pytest.mark.parametrize("optimizer", FORMULAS)
def test_without_a_gradient_weights_shrink_and_norms_and_biases_stay(optimizer: str) -> None:
    for name, before, _, after in stepped(optimizer, gradients=False):
        if name in ("0.weight", "3.weight"):
            assert after.abs().sum() < before.abs().sum(), name
        else:
            assert torch.equal(after, before), name


def test_every_optimizer_of_the_recipe_is_one_of_these() -> None:
    choices = FitConfig.model_json_schema()["properties"]["optimizer"]["enum"]
    assert set(choices) == set(FORMULAS)
    assert isinstance(new_optimizer(FitConfig(optimizer="adafactor"), network()), Adafactor)


def test_the_penalty_is_the_sum_of_absolute_weights_without_norms_and_biases() -> None:
    model = network()
    expected = model[0].weight.abs().sum() + model[3].weight.abs().sum()
    assert l1_norm(model).item() == pytest.approx(expected.item())
    assert not decays("conv.bias", torch.zeros(3, 1))


def test_the_penalty_is_of_the_weights_that_are_trained() -> None:
    model = network()
    model[0].requires_grad_(False)
    assert l1_norm(model).item() == pytest.approx(model[3].weight.abs().sum().item())
    model[3].weight.requires_grad_(False)  # its bias is trained still, and has no penalty
    assert l1_norm(model).item() == 0.0
