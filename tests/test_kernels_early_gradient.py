from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kernel_cases import interpreter
from planted_bugs import plant

from kernels import early_gradient as module
from kernels.distill_loss import distill_loss
from kernels.hidden_loss import hidden_loss
from kernels.runtime import interpreted

pytestmark = interpreter
Loss = Callable[[torch.Tensor], torch.Tensor]
LOSSES: dict[str, tuple[tuple[int, ...], Loss]] = {
    "distill_loss": ((3, 5), lambda s: distill_loss(s, torch.zeros_like(s), None, 2.0).loss),
    "hidden_loss": ((2, 3, 4), lambda s: hidden_loss(s, torch.zeros_like(s)).loss),
}


def made(loss: torch.Tensor) -> torch.Tensor:
    """The gradient that the loss made in the forward pass."""
    (gradient,) = loss.grad_fn.saved_tensors  # type: ignore[union-attr]
    return gradient


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_gradient_is_handed_on_in_the_memory_that_it_was_made_in(name: str, factor: float) -> None:
    shape, loss_of = LOSSES[name]
    student = torch.randn(shape, requires_grad=True)
    with interpreted():
        loss = loss_of(student)
        gradient = made(loss)
        expected = gradient * factor
        (found,) = torch.autograd.grad(loss, student, torch.tensor(factor))
    assert found.data_ptr() == gradient.data_ptr()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_a_graph_that_is_kept_keeps_its_gradient_as_it_was(name: str) -> None:
    shape, loss_of = LOSSES[name]
    student = torch.randn(shape, requires_grad=True)
    with interpreted():
        loss = loss_of(student)
        before = made(loss).clone()
        (found,) = torch.autograd.grad(loss, student, torch.tensor(3.0), retain_graph=True)
    assert torch.equal(found, before * 3)
    assert torch.equal(made(loss), before)


@pytest.mark.parametrize("name", LOSSES)
def test_of_fp16_it_is_kept_in_fp32_and_rounded_once(name: str) -> None:
    shape, loss_of = LOSSES[name]
    student = torch.randn(shape, dtype=torch.float16, requires_grad=True)
    with interpreted():
        loss = loss_of(student)
        gradient = made(loss)
        (found,) = torch.autograd.grad(loss, student, torch.tensor(1024.0))
    assert gradient.dtype == torch.float32
    assert torch.equal(found, (gradient * 1024).half())


@pytest.mark.parametrize("name", LOSSES)
def test_a_second_derivative_is_refused(name: str) -> None:
    shape, loss_of = LOSSES[name]
    student = torch.randn(shape, requires_grad=True)
    with interpreted():
        factor = torch.tensor(2.0, requires_grad=True)
        (first,) = torch.autograd.grad(loss_of(student) * factor, student, create_graph=True)
        with pytest.raises(RuntimeError, match="no autograd formula"):
            first.sum().backward()


@pytest.mark.parametrize("count", [1, module.BLOCK, 3 * module.BLOCK + 1])
def test_gradients_of_many_blocks(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PROGRAMS", 2)
    gradient, factor = torch.randn(count), torch.tensor(-0.5)
    with interpreted():
        assert torch.equal(module._scaled(gradient, factor, torch.float32), gradient * -0.5)
        torch.library.opcheck(module._scaled, (gradient, factor, torch.bfloat16))  # it has no gradient of its own


def test_a_factor_that_is_dropped_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plant(monkeypatch, tmp_path, module, "_scale_kernel", "gradient * factor", "gradient")
    with pytest.raises(AssertionError):
        test_a_gradient_is_handed_on_in_the_memory_that_it_was_made_in("distill_loss", 3.0)
