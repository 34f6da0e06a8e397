from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kernel_cases import COLUMNS, ROWS, far, interpreter, strided, transposed
from planted_bugs import plant

from kernels import quantize_kernels, row_scales
from kernels import quantize_rows as module
from kernels.quantize_rows import quantize_rows, reference
from kernels.runtime import interpreted

pytestmark = interpreter


def agree(x: torch.Tensor) -> None:
    """The kernel gives what whole numbers demand: the row's maximum is 127, nothing is off by more than half a step."""
    with interpreted():
        codes, scale = quantize_rows(x)
    assert (codes.dtype, scale.dtype, codes.shape, scale.shape) == (torch.int8, torch.float32, x.shape, x.shape[:-1])
    torch.testing.assert_close(scale.double() * 127, x.double().abs().amax(dim=-1), rtol=3e-7, atol=0)
    assert (codes.int().abs().amax(dim=-1) == 127).all()
    steps = x.double() / scale.double().unsqueeze(-1)
    assert (codes - steps).abs().max() <= 0.5 + 2e-5


@pytest.mark.parametrize("columns", [*COLUMNS, 8200])
@pytest.mark.parametrize("rows", ROWS)
def test_each_row_fills_its_range_and_is_off_by_half_a_step_at_most(rows: int, columns: int) -> None:
    torch.manual_seed(rows * columns)
    agree(torch.randn(rows, columns) * torch.logspace(-6, 6, rows).unsqueeze(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    agree(torch.randn(3, 11, 197).to(dtype))


@pytest.mark.parametrize("layout", [strided, transposed])
def test_any_layout(layout) -> None:
    torch.manual_seed(1)
    agree(layout(torch.randn, 7, 130))
    agree(torch.randn(130).expand(4, 130))


def test_the_kernel_and_plain_pytorch_give_the_same_bits() -> None:
    torch.manual_seed(2)
    x = torch.randn(20, 333)
    with interpreted():
        found = quantize_rows(x)
    for tensor, expected in zip(found, reference(x), strict=True):
        assert torch.equal(tensor, expected)


def test_rows_that_lie_beyond_what_32_bits_can_count() -> None:
    agree(far(torch.randn(3, 64).half()))


def test_ties_go_to_the_even_code() -> None:
    x = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -127.0]])
    with interpreted():
        codes, _ = quantize_rows(x)
    assert codes.tolist() == [[127, 0, 2, 2, 0, -2, -127]]


@pytest.mark.parametrize("columns", [20, 8200])
def test_nan_and_infinity_show_in_the_scale_and_zeros_stay_zeros(columns: int) -> None:
    x = torch.randn(5, columns)
    x[0, 3], x[1, -1], x[2, 0], x[3] = float("nan"), float("inf"), -float("inf"), 0.0
    with interpreted():
        codes, scale = quantize_rows(x)
    assert scale.isnan().tolist() == [True, True, True, False, False]
    assert not codes[:4].any()
    assert (codes[3] * scale[3] == 0).all()
    for tensor, expected in zip((codes, scale), reference(x), strict=True):
        torch.testing.assert_close(tensor, expected, equal_nan=True, rtol=0, atol=0)


def test_an_empty_batch() -> None:
    with interpreted():
        codes, scale = quantize_rows(torch.empty(2, 0, 12))
    assert (codes.shape, scale.shape, codes.dtype) == ((2, 0, 12), (2, 0), torch.int8)


def test_fp8_is_made_in_plain_pytorch_where_the_kernel_cannot() -> None:
    torch.manual_seed(3)
    x = torch.randn(6, 50)
    with interpreted():  # whose fp8 would be wrong without a word
        codes, scale = quantize_rows(x, torch.float8_e4m3fn)
    assert codes.dtype == torch.float8_e4m3fn
    assert (codes.float().abs().amax(dim=-1) == 448).all()
    torch.testing.assert_close(codes.float() * scale.unsqueeze(-1), x, rtol=2**-4, atol=1e-3)


def test_opcheck_compile_and_export() -> None:
    x = torch.randn(4, 40)
    with interpreted():
        torch.library.opcheck(module._quantize, (x, torch.int8))
    compiled = torch.compile(lambda a: quantize_rows(a)[0] + 1, fullgraph=True, backend="aot_eager")
    with interpreted():
        assert torch.equal(compiled(x), reference(x)[0] + 1)

    class Layer(torch.nn.Module):
        def forward(self, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return quantize_rows(a)

    assert "limbeck.quantize_rows" in str(torch.export.export(Layer(), (x,)).graph)


@pytest.mark.parametrize(
    ("x", "dtype", "said"),
    [
        (torch.zeros(2, 3), torch.uint8, "codes of uint8: expected one of int8, float8_e4m3fn"),
        (torch.zeros(2, 3).int(), torch.int8, "x is int32: expected one of"),
        (torch.zeros(2, 0), torch.int8, r"x is \(2, 0\): expected \[..., C\]"),
    ],
)
def test_what_does_not_fit_is_refused(x: torch.Tensor, dtype: torch.dtype, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        quantize_rows(x, dtype)


@pytest.mark.parametrize(
    ("where", "function", "right", "wrong", "columns"),
    [
        (row_scales, "most_of", "tl.abs(y)", "y", 10),
        (row_scales, "scale_of", "(1.0 / LIMIT)", "(1.0 / 128)", 10),
        (row_scales, "codes_of", "12582912.0) - 12582912.0", "0.0)", 10),  # towards zero
        (quantize_kernels, "_row_kernel", "mask=row < count", "mask=row < 1", 10),
        (quantize_kernels, "_wide_kernel", "tl.maximum(most, found)", "found", 8200),
    ],
)
def test_a_planted_bug_is_found(
    where, function: str, right: str, wrong: str, columns: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    x = -torch.rand(3, columns) * torch.linspace(2, 1, columns)  # the largest are in front, and below zero
    agree(x)
    plant(monkeypatch, tmp_path, where, function, right, wrong)
    if where is row_scales:
        monkeypatch.setattr(quantize_kernels, function, getattr(row_scales, function))
    with pytest.raises(AssertionError):
        agree(x)
