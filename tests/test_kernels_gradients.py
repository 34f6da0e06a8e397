"""The gradients of the operators beside numbers.

gradcheck asks the registered operators in fp64, which take the reference path. In fp32 each kernel's gradient is held
against differences of that kernel's own forward pass, in Triton's interpreter: no reference has a part in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
from kernel_cases import interpreter
from planted_bugs import plant
from torch import Tensor

from kernels import (
    bias_gelu,
    distill_loss,
    distill_loss_kernels,
    hidden_loss,
    hidden_loss_kernels,
    layernorm_backward,
    residual_layernorm,
)
from kernels.runtime import interpreted

pytestmark = interpreter
OPS = torch.ops.limbeck
STEP = 0.02  # what a central difference leaves out, and the rounding of fp32 over it, stay below 1e-3
EPS, SEED = 1e-5, torch.tensor([2**40 + 12345])
MODULES = (bias_gelu, distill_loss, hidden_loss, residual_layernorm)  # which register the operators
IGNORED = distill_loss.IGNORED
LABELS, MASK = torch.tensor([1, IGNORED]), torch.tensor([[True, True, False], [True, False, False]])


@dataclass(frozen=True)
class Operator:
    """Inputs that take a gradient, by their shapes, and what is differentiated."""

    shapes: tuple[tuple[int, ...], ...]
    output: Callable[..., Tensor]


OPERATORS = {
    "distill_loss": Operator(
        ((2, 5),),
        lambda s: OPS.distill_loss(s, _fixed(s, 2, 5), LABELS, 3.0, 0.9, 0.4, 0.1, IGNORED, s.requires_grad)[0],
    ),
    "hidden_loss": Operator(
        ((2, 3, 4),),
        lambda s: OPS.hidden_loss(s, _fixed(s, 2, 3, 4), MASK, 1.5, 0.4, s.requires_grad)[0],
    ),
    "residual_layernorm": Operator(
        ((2, 5), (2, 5), (5,), (5,)), lambda *given: OPS.residual_layernorm(*given, EPS, 0.3, SEED)[0]
    ),
    "residual_layernorm_with_sum": Operator(
        ((2, 5), (2, 5), (5,), (5,)),
        lambda *given: torch.stack(OPS.residual_layernorm_with_sum(*given, EPS, 0.3, SEED)[:2]),
    ),
    "bias_gelu": Operator(((3, 5), (5,)), lambda x, bias: OPS.bias_gelu(x, bias, "none")),
    "bias_gelu, tanh": Operator(((3, 5), (5,)), lambda x, bias: OPS.bias_gelu(x, bias, "tanh")),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_gradcheck_of_the_registered_operator(name: str) -> None:
    torch.manual_seed(0)
    operator = OPERATORS[name]
    leaves = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in operator.shapes)
    assert torch.autograd.gradcheck(operator.output, leaves)


@pytest.mark.parametrize("name", OPERATORS)
def test_a_kernels_gradient_is_the_slope_of_its_own_forward_pass(name: str) -> None:
    agree(OPERATORS[name])


@pytest.mark.parametrize(
    ("name", "where", "kernel", "right", "wrong"),
    [
        ("distill_loss", distill_loss_kernels, "_rows_kernel", "g = alpha * temperature * ", "g = alpha * "),
        ("hidden_loss", hidden_loss_kernels, "_tokens_kernel", "(2.0 * mse_weight / H)", "(mse_weight / H)"),
        (
            "residual_layernorm",
            layernorm_backward,
            "_backward_kernel",
            "kept(seed_ptr, row, 0",
            "kept(seed_ptr, row + 1, 0",
        ),
        ("residual_layernorm_with_sum", layernorm_backward, "_backward_kernel", "dz * grown", "dz"),
        (
            "bias_gelu",
            bias_gelu,
            "_backward_kernel",
            "total += tl.sum(tl.where(inside, du, 0.0), axis=0)",
            "total += 0.0",
        ),
    ],
)
def test_a_gradient_that_is_wrong_is_found(
    name: str, where: ModuleType, kernel: str, right: str, wrong: str,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    plant(monkeypatch, tmp_path, where, kernel, right, wrong)
    with pytest.raises(AssertionError):
        agree(OPERATORS[name])


def agree(operator: Operator) -> None:
    """The kernel's gradient in fp32 beside differences of its forward pass, both in the interpreter."""
    torch.manual_seed(0)
    leaves = [torch.randn(shape) for shape in operator.shapes]
    with interpreted():
        output = operator.output(*(leaf.requires_grad_() for leaf in leaves))
        along = torch.randn(output.shape)
        found = torch.autograd.grad(output, leaves, along)
        for leaf in leaves:
            leaf.requires_grad_(False)
        for leaf, gradient in zip(leaves, found, strict=True):
            for way in _unit(leaf.shape), _unit(leaf.shape):
                slope = _slope(lambda: (operator.output(*leaves).double() * along).sum(), leaf, way)
                assert slope.abs() > 0.01
                torch.testing.assert_close((gradient.double() * way).sum(), slope, rtol=2e-3, atol=2e-3)


def _slope(value: Callable[[], Tensor], leaf: Tensor, way: Tensor) -> Tensor:
    """The derivative of `value` as `leaf` moves that way, by a central difference."""
    here, ends = leaf.clone(), []
    for step in (STEP, -STEP):
        leaf.copy_(here + step * way)
        ends.append(value())
    leaf.copy_(here)
    return (ends[0] - ends[1]) / (2 * STEP)


def _unit(shape: torch.Size) -> Tensor:
    """A random direction."""
    way = torch.randn(shape)
    return way / way.norm()


def _fixed(like: Tensor, *shape: int) -> Tensor:
    """The same numbers each time, of the dtype of `like`."""
    return (torch.arange(like.numel()).view(shape) % 7 - 3).to(like.dtype) / 2
