from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kernel_cases import COLUMNS, ROWS, close, far, interpreter, strided, transposed
from planted_bugs import plant

from kernels import bias_gelu as module
from kernels.bias_gelu import bias_gelu, reference
from kernels.gelu import APPROXIMATIONS
from kernels.runtime import interpreted

pytestmark = interpreter


def both(
    x: torch.Tensor, bias: torch.Tensor, grad: torch.Tensor, approximate: str = "none"
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """y, dx, db by the kernels in the interpreter, and by autograd in fp64."""
    with interpreted():
        mine = [leaf.detach().requires_grad_() for leaf in (x, bias)]
        y = bias_gelu(*mine, approximate)
        y.backward(grad)
    exact = [leaf.detach().double().requires_grad_() for leaf in (x, bias)]
    expected = torch.nn.functional.gelu(exact[0] + exact[1], approximate=approximate)
    expected.backward(grad.double())
    return [y, *(leaf.grad for leaf in mine)], [expected, *(leaf.grad for leaf in exact)]


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("rows", ROWS)
def test_it_is_gelu_of_the_sum_and_its_gradients(rows: int, columns: int) -> None:
    torch.manual_seed(rows * columns)
    found, expected = both(torch.randn(rows, columns), torch.randn(columns), torch.randn(rows, columns))
    for tensor, exact, summed in zip(found, expected, (1, 1, rows), strict=True):
        close(tensor, exact, summed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_and_written_and_never_summed_in(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    found, expected = both(*(torch.randn(*shape).to(dtype) for shape in ((33, 197), (197,), (33, 197))))
    for tensor, exact, summed in zip(found, expected, (1, 1, 33), strict=True):
        assert tensor.dtype == dtype
        close(tensor, exact, summed)


@pytest.mark.parametrize("columns", [10, 1000])
def test_tanh_instead_of_erf(columns: int) -> None:
    torch.manual_seed(columns)
    x = torch.randn(33, columns) * 3
    found, expected = both(x, torch.randn(columns), torch.randn(33, columns), "tanh")
    for tensor, exact, summed in zip(found, expected, (2, 4, 33), strict=True):
        close(tensor, exact, summed)


def test_a_bias_of_fp32_beside_half_precision() -> None:
    torch.manual_seed(0)
    found, expected = both(torch.randn(9, 50).half(), torch.randn(50), torch.randn(9, 50).half())
    assert [tensor.dtype for tensor in found] == [torch.float16, torch.float16, torch.float32]
    for tensor, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(tensor.double(), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("layout", [strided, transposed])
def test_any_layout(layout) -> None:
    torch.manual_seed(1)
    found, expected = both(layout(torch.randn, 7, 130), torch.randn(130), layout(torch.randn, 7, 130))
    for tensor, exact in zip(found, expected, strict=True):
        close(tensor, exact, 7)


def test_a_gradient_of_stride_0_as_sum_makes_it() -> None:
    x, bias = torch.randn(5, 3, 33, requires_grad=True), torch.randn(33, requires_grad=True)
    with interpreted():
        bias_gelu(x, bias).sum().backward()
    assert bias.grad is not None
    exact = torch.nn.functional.gelu
    torch.testing.assert_close(bias.grad, torch.autograd.functional.jacobian(lambda b: exact(x + b).sum(), bias))


def test_rows_that_lie_beyond_what_32_bits_can_count() -> None:
    torch.manual_seed(2)
    x, bias, grad = torch.randn(3, 64).half(), torch.randn(64).half(), torch.randn(3, 64).half()
    found, expected = both(far(x), bias, far(grad))
    for tensor, exact in zip(found, expected, strict=True):
        close(tensor, exact, 3)


def test_an_empty_batch() -> None:
    x, bias = torch.empty(0, 12, requires_grad=True), torch.randn(12, requires_grad=True)
    with interpreted():
        y = bias_gelu(x, bias)
        y.sum().backward()
    assert y.shape == (0, 12)
    assert bias.grad is not None
    assert not bias.grad.any()


def test_nan_and_infinity_stay_where_they_are() -> None:
    x = torch.tensor([[float("nan"), float("inf"), -1e4, 1.0]])
    with interpreted():
        y = bias_gelu(x, torch.zeros(4))
    nan, inf = float("nan"), float("inf")
    torch.testing.assert_close(y, torch.tensor([[nan, inf, 0.0, 0.8413447]]), equal_nan=True)


@pytest.mark.parametrize("approximate", APPROXIMATIONS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_rows_of_what_is_no_number_some_or_whole_are_what_torch_makes_of_them(value: float, approximate: str) -> None:
    torch.manual_seed(3)
    x, grad = torch.randn(4, 10), torch.randn(4, 10)
    x[1, 3], x[2] = value, value
    found, expected = both(x, torch.randn(10), grad, approximate)
    for tensor, exact in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(tensor.double(), exact, equal_nan=True)
        assert tensor[[0, 3]].isfinite().all()


def test_opcheck_and_gradcheck() -> None:
    x, bias = (
        torch.randn(3, 5, dtype=torch.float64, requires_grad=True),
        torch.randn(5, dtype=torch.float64, requires_grad=True),
    )
    for approximate in APPROXIMATIONS:
        torch.autograd.gradcheck(lambda *tensors: bias_gelu(*tensors, approximate), (x, bias))  # noqa: B023
    single = tuple(torch.randn(*shape, requires_grad=True) for shape in ((3, 5), (5,)))
    with interpreted():
        torch.library.opcheck(module._forward, (*single, "tanh"))


def test_compiled_whole_and_exported() -> None:
    x, bias = torch.randn(4, 40), torch.randn(40)
    compiled = torch.compile(lambda a, b: bias_gelu(a, b) * 2, fullgraph=True, backend="aot_eager")
    with interpreted():
        torch.testing.assert_close(compiled(x, bias), reference(x, bias) * 2)

    class Layer(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return bias_gelu(a, b)

    assert "limbeck.bias_gelu" in str(torch.export.export(Layer(), (x, bias)).graph)


@pytest.mark.parametrize(
    ("x", "bias", "said"),
    [
        (torch.zeros(2, 3), torch.zeros(4), r"x is \(2, 3\) and bias \(4,\)"),
        (torch.zeros(2, 3), torch.zeros(3).half(), "x is float32 on cpu and bias float16 on cpu"),
        (torch.zeros(2, 3).int(), torch.zeros(3).int(), "x is int32: expected one of"),
    ],
)
def test_what_does_not_fit_is_refused(x: torch.Tensor, bias: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bias_gelu(x, bias)


def test_another_approximation_is_refused() -> None:
    with pytest.raises(ValueError, match="approximate is 'erf': expected one of"):
        bias_gelu(torch.zeros(2, 3), torch.zeros(3), "erf")


@pytest.mark.parametrize(
    ("kernel", "right", "wrong"),
    [
        ("_forward_kernel", "+ bias[None, :]", ""),
        ("_backward_kernel", "total += tl.sum(tl.where(inside, du, 0.0), axis=0)", "total += 0.0"),
        ("_backward_kernel", "tl.where(inside, du, 0.0)", "tl.where(inside, du, 1.0)"),
        ("_backward_kernel", "u += bias[None, :]", ""),
    ],
)
def test_a_planted_bug_is_found(
    kernel: str, right: str, wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plant(monkeypatch, tmp_path, module, kernel, right, wrong)
    with pytest.raises(AssertionError):
        test_it_is_gelu_of_the_sum_and_its_gradients(3, 10)
