from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kernel_cases import COLUMNS, ROWS, close, far, interpreter, strided, transposed
from planted_bugs import plant
from torch import Tensor

from kernels import layernorm_backward, layernorm_forward
from kernels import residual_layernorm as module
from kernels.dropout_mask import keep_mask
from kernels.residual_layernorm import reference, residual_layernorm, residual_layernorm_with_sum
from kernels.runtime import interpreted

pytestmark = interpreter
EPS = 1e-5
SEED = torch.tensor([2**40 + 12345])


def drawn(rows: int, columns: int, dtype: torch.dtype = torch.float32, make: Callable = torch.randn) -> list[Tensor]:
    """x, residual, weight, bias and the gradient of y."""
    torch.manual_seed(rows * columns)
    shapes = (rows, columns), (rows, columns), (columns,), (columns,), (rows, columns)
    return [(make if len(shape) > 1 else torch.randn)(*shape).to(dtype) for shape in shapes]


def both(tensors: list[Tensor], p: float = 0.0) -> tuple[list[Tensor], list[Tensor]]:
    """y, dx, dresidual, dw, db by the kernels in the interpreter, and by autograd in fp64."""
    *leaves, grad = tensors
    with interpreted():
        mine = [leaf.detach().requires_grad_() for leaf in leaves]
        y = residual_layernorm(*mine, EPS, p, SEED if p else None)
        y.backward(grad)
    x, residual, weight, bias = exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = torch.nn.functional.layer_norm(residual + dropped(x, p), weight.shape, weight, bias, EPS)
    expected.backward(grad.double())
    return [y, *(leaf.grad for leaf in mine)], [expected, *(leaf.grad for leaf in exact)]


def dropped(x: Tensor, p: float) -> Tensor:
    return x * keep_mask(SEED, x.shape[0], x.shape[1], p) / (1 - p) if p else x


def agree(tensors: list[Tensor], p: float = 0.0) -> None:
    rows, half = tensors[0].shape[0], tensors[0].itemsize == 2
    deviation = (dropped(tensors[0], p) + tensors[1]).double().std(dim=1, correction=0).min().item()
    grown = 8 if half else int(8 * max(1, 1 / (deviation + EPS**0.5)))  # a rounding of z counts for so much in xhat
    for tensor, exact, summed in zip(*both(tensors, p), (grown,) * 3 + (rows * 4,) * 2, strict=True):
        close(tensor, exact, summed)


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("rows", ROWS)
def test_it_is_layer_norm_of_the_sum_and_its_gradients(rows: int, columns: int) -> None:
    agree(drawn(rows, columns))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_and_written_and_never_summed_in(dtype: torch.dtype) -> None:
    tensors = drawn(33, 197, dtype)
    found, _ = both(tensors)
    assert {tensor.dtype for tensor in found} == {dtype}
    agree(tensors)


def test_parameters_may_stay_fp32_beside_half_precision() -> None:
    x, residual, weight, bias, grad = drawn(5, 64)
    found, expected = both([x.half(), residual.half(), weight, bias, grad.half()])
    assert [tensor.dtype for tensor in found] == [torch.float16] * 3 + [torch.float32] * 2
    for tensor, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(tensor.double(), exact, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("layout", [strided, transposed])
def test_any_layout(layout: Callable) -> None:
    agree(drawn(7, 130, make=lambda *shape: layout(torch.randn, *shape)))


@pytest.mark.parametrize("columns", [10, 768, 4097])
def test_dropout_in_both_directions_is_the_same(columns: int) -> None:
    agree(drawn(3 if columns > 4096 else 9, columns), p=0.3)


def test_dropout_is_what_the_seed_says_on_every_way() -> None:
    x, residual, weight, bias, _ = drawn(6, 100)
    args = (residual, weight, bias, EPS, 0.5)
    with interpreted():
        once, again, other = (residual_layernorm(x, *args, seed) for seed in (SEED, SEED, SEED + 1))
    torch.testing.assert_close(once, again, rtol=0, atol=0)
    torch.testing.assert_close(once, residual_layernorm(x, *args, SEED))  # no GPU, no interpreter: the plain operators
    torch.testing.assert_close(once, reference(x, *args, SEED))
    assert not torch.allclose(once, other)
    torch.manual_seed(3)
    first = residual_layernorm(x, *args)
    torch.manual_seed(3)
    torch.testing.assert_close(first, residual_layernorm(x, *args), rtol=0, atol=0)


def test_dropout_keeps_the_share_it_should_and_no_row_or_column_more_often() -> None:
    mask = keep_mask(SEED, 2000, 400, 0.1).float()
    assert abs(mask.mean().item() - 0.9) < 0.0015  # 4.5 deviations of a share of 800,000
    assert mask.mean(dim=0).sub(0.9).abs().max() < 0.034  # 5 deviations
    assert mask.mean(dim=1).sub(0.9).abs().max() < 0.075
    assert torch.corrcoef(mask.T[:8]).fill_diagonal_(0).abs().max() < 0.11


@pytest.mark.parametrize("columns", [100, 4097])
@pytest.mark.parametrize("p", [0.0, 0.4])
def test_the_sum_is_given_too_and_takes_a_gradient(columns: int, p: float) -> None:
    *leaves, grad = drawn(5, columns)
    grad_sum = torch.randn(5, columns)
    with interpreted():
        mine = [leaf.detach().requires_grad_() for leaf in leaves]
        y, summed = residual_layernorm_with_sum(*mine, EPS, p, SEED if p else None)
        torch.autograd.backward([y, summed], [grad, grad_sum])
    x, residual, weight, bias = exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    z = residual + dropped(x, p)
    expected = torch.nn.functional.layer_norm(z, weight.shape, weight, bias, EPS)
    torch.autograd.backward([expected, z], [grad.double(), grad_sum.double()])
    close(y, expected, 8)
    close(summed, z)
    for leaf, wide in zip(mine, exact, strict=True):
        close(leaf.grad, wide.grad, 20)


def test_the_sum_in_half_precision_is_the_one_that_is_normalised() -> None:
    x, residual, weight, bias, _ = (tensor.half() for tensor in drawn(4, 60))
    with interpreted():
        y, summed = residual_layernorm_with_sum(x * 100, residual, weight, bias, EPS)
    expected = torch.nn.functional.layer_norm(summed.double(), (60,), weight.double(), bias.double(), EPS)
    close(y, expected)


def test_without_a_residual_it_is_layer_norm() -> None:
    x, _, weight, bias, grad = drawn(5, 48)
    x.requires_grad_()
    with interpreted():
        y = residual_layernorm(x, None, weight, bias, EPS)
        y.backward(grad)
    exact = x.detach().double().requires_grad_()
    expected = torch.nn.functional.layer_norm(exact, (48,), weight.double(), bias.double(), EPS)
    expected.backward(grad.double())
    close(y, expected, 4)
    close(x.grad, exact.grad, 8)


@pytest.mark.parametrize("columns", [768, 4097])
def test_a_large_mean_costs_no_digits_of_the_variance(columns: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, columns) + 4096  # E[z^2] - E[z]^2 in fp32 would be off by a whole unit
    with interpreted():
        y = residual_layernorm(x, None, torch.ones(columns), torch.zeros(columns), EPS)
    expected = torch.nn.functional.layer_norm(x.double(), (columns,), eps=EPS)
    torch.testing.assert_close(y.double(), expected, rtol=1e-3, atol=1e-3)


def test_a_gradient_of_stride_0_as_sum_makes_it() -> None:
    x, residual, weight, bias, _ = drawn(5, 33)
    x = x.view(1, 5, 33).requires_grad_()
    bias.requires_grad_()
    with interpreted():
        residual_layernorm(x, residual.view(1, 5, 33), weight, bias, EPS).sum().backward()
    torch.testing.assert_close(bias.grad, torch.full((33,), 5.0))
    exact = x.detach().double().requires_grad_()
    z = exact + residual.double()
    torch.nn.functional.layer_norm(z, (33,), weight.double(), eps=EPS).sum().backward()
    close(x.grad, exact.grad, 8)


@pytest.mark.parametrize("p", [0.0, 0.1])
def test_an_empty_batch(p: float) -> None:
    x, bias = torch.empty(0, 12, requires_grad=True), torch.randn(12, requires_grad=True)
    with interpreted():
        y = residual_layernorm(x, x.detach(), torch.ones(12), bias, EPS, p)
        y.sum().backward()
    assert y.shape == (0, 12)
    assert bias.grad is not None
    assert not bias.grad.any()


def test_nan_and_infinity_spoil_their_row_alone_and_a_row_of_padding_is_the_bias() -> None:
    x = torch.randn(4, 20)
    x[0, 3], x[1, 5], x[2] = float("nan"), float("inf"), 0.0
    bias = torch.randn(20)
    with interpreted():
        y = residual_layernorm(x, torch.zeros(4, 20), torch.ones(20), bias, EPS)
    assert not y[:2].isfinite().any()
    torch.testing.assert_close(y[2], bias, rtol=0, atol=0)
    torch.testing.assert_close(y[3:], torch.nn.functional.layer_norm(x[3:], (20,), bias=bias))


@pytest.mark.parametrize("columns", [20, 4097])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_rows_of_what_is_no_number_some_or_whole_are_what_torch_makes_of_them(value: float, columns: int) -> None:
    tensors = drawn(4, columns)
    tensors[0][1, 3], tensors[1][2] = value, value
    found, expected = both(tensors)
    for tensor, exact in zip(found[:3], expected[:3], strict=True):  # y and the gradients of x and residual
        assert torch.equal(tensor.isnan(), exact.isnan())
        assert tensor[1:3].isnan().all()
        assert tensor[[0, 3]].isfinite().all()


def test_rows_that_lie_beyond_what_32_bits_can_count() -> None:
    x, residual, weight, bias, grad = drawn(3, 64, torch.float16)
    with interpreted():
        y = residual_layernorm(far(x), residual, weight, bias, EPS)
    torch.testing.assert_close(y, reference(x, residual, weight, bias, EPS))
    statistics = torch.zeros(3), torch.ones(3)
    with interpreted():
        near, away = (
            module._backward(each, None, x, residual, weight, *statistics, 0.0, 0.0, None) for each in (grad, far(grad))
        )
    for one, other in zip(near, away, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_opcheck_and_gradcheck() -> None:
    wide = [tensor.double().requires_grad_() for tensor in drawn(3, 5)[:4]]
    torch.autograd.gradcheck(lambda *leaves: residual_layernorm(*leaves, EPS, 0.3, SEED), wide)
    torch.autograd.gradcheck(lambda *leaves: residual_layernorm_with_sum(*leaves, EPS, 0.3, SEED), wide)
    leaves = [tensor.requires_grad_() for tensor in drawn(3, 5)[:4]]
    plain = [tensor.detach() for tensor in leaves]
    statistics = torch.zeros(3), torch.ones(3)
    with interpreted():
        torch.library.opcheck(module._forward, (*leaves, EPS, 0.3, SEED))
        torch.library.opcheck(module._forward_with_sum, (*leaves, EPS, 0.0, None))
        torch.library.opcheck(module._backward, (plain[0], None, *plain[:3], *statistics, 0.3, 0.3, SEED))


def test_compiled_whole_and_exported() -> None:
    tensors = drawn(4, 40)[:4]
    compiled = torch.compile(lambda *t: residual_layernorm(*t, EPS) * 2, fullgraph=True, backend="aot_eager")
    with interpreted():
        torch.testing.assert_close(compiled(*tensors), reference(*tensors, EPS) * 2)

    class Layer(torch.nn.Module):
        def forward(self, *tensors: Tensor) -> Tensor:
            return residual_layernorm(*tensors, EPS)

    assert "limbeck.residual_layernorm" in str(torch.export.export(Layer(), tuple(tensors)).graph)


X, W = torch.zeros(2, 3), torch.zeros(3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((X, X, W, torch.zeros(4), EPS), r"x is \(2, 3\), weight is \(3,\), bias is \(4,\)"),
        ((X, torch.zeros(1, 3), W, W, EPS), r"x is \(2, 3\) and residual \(1, 3\): expected one shape"),
        ((X, X.half(), W, W, EPS), "x is float32 and residual float16"),
        ((X, X, W.half(), W.half(), EPS), "x is float32 on cpu and weight float16 on cpu"),
        ((X.int(), X.int(), W, W, EPS), "x is int32: expected one of"),
        ((X, X, W, W, 0.0), "eps is 0.0: expected a number above 0"),
        ((X, X, W, W, EPS, 1.0), "p is 1.0: expected a probability"),
        ((X, X, W, W, EPS, 0.1, torch.zeros(1)), r"seed is float32 \(1,\) on cpu: expected int64 \(1,\)"),
        ((torch.zeros(2, 0), None, torch.zeros(0), torch.zeros(0), EPS), r"x is \(2, 0\)"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        residual_layernorm(*arguments)


IN_ROW = "mask=inside, other=0.0).to(tl.float32)"


@pytest.mark.parametrize(
    ("where", "kernel", "right", "wrong", "columns", "p"),
    [
        (
            layernorm_forward,
            "normalised",
            "tl.where(inside, z - mean[:, None], 0.0)",
            "z - mean[:, None]",
            10,
            0.0,
        ),
        (layernorm_forward, "_wide_kernel", "shift * shift * first", "first", 4097, 0.0),
        (layernorm_backward, "_backward_kernel", "db += dy", "db += 0.0", 10, 0.0),
        (layernorm_backward, "_backward_kernel", "- xhat * along[:, None]", "", 10, 0.0),
        (layernorm_backward, "_backward_kernel", "tl.where(inside, (z", "tl.where(inside, (2 * z", 10, 0.0),
        (layernorm_backward, "_backward_kernel", "count, steps", "steps, count", 10, 0.0),
        (layernorm_backward, "_backward_kernel", "kept(seed_ptr, row, 0", "kept(seed_ptr, row + 1, 0", 10, 0.5),
        (layernorm_backward, "_wide_kernel", "kept(seed_ptr, row, first", "kept(seed_ptr, row, 0", 4097, 0.5),
    ],
)
def test_a_planted_bug_is_found(
    where, kernel: str, right: str, wrong: str, columns: int, p: float,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    plant(monkeypatch, tmp_path, where, kernel, right, wrong)
    with pytest.raises(AssertionError):
        agree(drawn(3 if columns > 4096 else 20, columns), p)
