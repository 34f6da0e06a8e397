from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kernel_cases import COLUMNS, ROWS, far, interpreter, strided, transposed
from planted_bugs import plant

from kernels import bias_gelu_quantized as module
from kernels import quantize_kernels
from kernels.bias_gelu_quantized import bias_gelu_quantized, reference
from kernels.runtime import interpreted

pytestmark = interpreter


def agree(x: torch.Tensor, bias: torch.Tensor, approximate: str = "none") -> None:
    """codes * scale is GELU's fp64 value within half a step, and the largest of a row has the code 127 or -127."""
    with interpreted():
        codes, scale = bias_gelu_quantized(x, bias, approximate=approximate)
    assert (codes.dtype, scale.dtype, codes.shape, scale.shape) == (torch.int8, torch.float32, x.shape, x.shape[:-1])
    y = torch.nn.functional.gelu(x.double() + bias.double(), approximate=approximate)
    torch.testing.assert_close(scale.double() * 127, y.abs().amax(dim=-1), rtol=2e-5, atol=1e-8)
    assert (codes.int().abs().amax(dim=-1) == 127).all()
    assert (codes - y / scale.double().unsqueeze(-1)).abs().max() <= 0.5 + 3e-3


@pytest.mark.parametrize("columns", [*COLUMNS, 8200])
@pytest.mark.parametrize("rows", ROWS)
def test_it_is_gelu_of_the_sum_within_half_a_step(rows: int, columns: int) -> None:
    torch.manual_seed(rows * columns)
    agree(torch.randn(rows, columns) + 0.5, torch.randn(columns))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_also_beside_an_fp32_bias_and_with_tanh(dtype: torch.dtype, approximate: str) -> None:
    torch.manual_seed(0)
    x, bias = torch.randn(3, 11, 197).to(dtype), torch.randn(197)
    agree(x, bias, approximate)
    agree(x, bias.to(dtype), approximate)


@pytest.mark.parametrize("layout", [strided, transposed])
def test_any_layout(layout) -> None:
    torch.manual_seed(1)
    agree(layout(torch.randn, 7, 130), torch.randn(130))
    agree(torch.randn(130).expand(4, 130), torch.randn(260)[::2])


def test_rows_that_lie_beyond_what_32_bits_can_count() -> None:
    agree(far(torch.randn(3, 64).half()), torch.randn(64).half())


def test_kernel_and_plain_pytorch_differ_by_one_step_at_most() -> None:
    torch.manual_seed(2)
    x, bias = torch.randn(20, 333), torch.randn(333)
    with interpreted():
        codes, scale = bias_gelu_quantized(x, bias)
    expected, expected_scale = reference(x, bias)
    torch.testing.assert_close(scale, expected_scale)
    assert (codes.int() - expected.int()).abs().max() <= 1
    assert (codes == expected).float().mean() > 0.999


def test_nan_and_infinity_show_in_the_scale_and_an_empty_batch_stays_empty() -> None:
    x = torch.randn(3, 20)
    x[0, 3], x[1, -1] = float("nan"), float("inf")
    with interpreted():
        codes, scale = bias_gelu_quantized(x, torch.zeros(20))
        empty = bias_gelu_quantized(x[:0], torch.zeros(20))
    assert scale.isnan().tolist() == [True, True, False]
    assert not codes[:2].any()
    assert [tensor.shape for tensor in empty] == [(0, 20), (0,)]


def test_opcheck_compile_and_export() -> None:
    x, bias = torch.randn(4, 40), torch.randn(40)
    with interpreted():
        torch.library.opcheck(module._quantize, (x, bias, torch.int8, "none"))
    compiled = torch.compile(lambda a, b: bias_gelu_quantized(a, b)[1] * 2, fullgraph=True, backend="aot_eager")
    with interpreted():
        torch.testing.assert_close(compiled(x, bias), reference(x, bias)[1] * 2)

    class Layer(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return bias_gelu_quantized(a, b)

    assert "limbeck.bias_gelu_quantized" in str(torch.export.export(Layer(), (x, bias)).graph)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((torch.zeros(2, 3), torch.zeros(4)), r"x is \(2, 3\) and bias \(4,\)"),
        ((torch.zeros(2, 3), torch.zeros(3).half()), "x is float32 on cpu and bias float16"),
        ((torch.zeros(2, 3), torch.zeros(3), torch.int16), "codes of int16: expected one of int8"),
        ((torch.zeros(2, 3), torch.zeros(3), torch.int8, "erf"), "approximate is 'erf': expected one of"),
        ((torch.zeros(2, 3).int(), torch.zeros(3)), "x is int32: expected one of"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bias_gelu_quantized(*arguments)


@pytest.mark.parametrize(
    ("function", "right", "wrong"),
    [
        ("_load", "u += tl.load(bias_ptr", "u += 0.0 * tl.load(bias_ptr"),
        ("_load", "gelu(u, TANH)", "gelu(u, not TANH)"),
        ("_row_kernel", "scale_of(most_of(y), LIMIT)", "scale_of(most_of(y) * 1.01, LIMIT)"),
    ],
)
def test_a_planted_bug_is_found(
    function: str, right: str, wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    x, bias = torch.randn(3, 100), torch.randn(100)
    agree(x, bias)
    plant(monkeypatch, tmp_path, quantize_kernels, function, right, wrong)
    with pytest.raises(AssertionError):
        agree(x, bias)
