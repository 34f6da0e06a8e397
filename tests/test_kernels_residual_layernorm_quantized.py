from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kernel_cases import COLUMNS, ROWS, close, far, interpreter, strided, transposed
from planted_bugs import plant
from torch import Tensor

from kernels import residual_layernorm_quantized as module
from kernels.residual_layernorm_quantized import reference, residual_layernorm_quantized
from kernels.runtime import interpreted

pytestmark = interpreter
EPS = 1e-3


def drawn(rows: int, columns: int, dtype: torch.dtype = torch.float32, make: Callable = torch.randn) -> list[Tensor]:
    """x, residual, weight and bias."""
    torch.manual_seed(rows * columns)
    shapes = (rows, columns), (rows, columns), (columns,), (columns,)
    return [(make if len(shape) > 1 else torch.randn)(*shape).to(dtype) for shape in shapes]


def agree(tensors: list[Tensor], keep: str = "y") -> None:
    """codes * scale is LayerNorm in fp64 within half a step, and what is kept is right."""
    with interpreted():
        codes, scale, kept = residual_layernorm_quantized(*tensors, EPS, keep=keep)
    x, residual, weight, bias = (tensor.double() for tensor in tensors)
    z = x + residual
    if keep == "sum":
        close(kept, z)
        z = kept.double()
    y = torch.nn.functional.layer_norm(z, weight.shape, weight, bias, EPS)
    if keep == "y":
        close(kept, y, 16)
    assert (codes.dtype, scale.dtype, scale.shape) == (torch.int8, torch.float32, x.shape[:-1])
    torch.testing.assert_close(scale.double() * 127, y.abs().amax(dim=-1), rtol=1e-4, atol=1e-5)
    assert (codes.int().abs().amax(dim=-1) == 127).all()
    assert (codes - y / scale.double().unsqueeze(-1)).abs().max() <= 0.5 + 0.01


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("rows", ROWS)
def test_it_is_layer_norm_of_the_sum_within_half_a_step(rows: int, columns: int) -> None:
    agree(drawn(rows, columns), keep="sum" if rows == 3 else "y")


@pytest.mark.parametrize("keep", ["y", "sum"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, keep: str) -> None:
    agree(drawn(9, 197, dtype), keep)


@pytest.mark.parametrize("layout", [strided, transposed])
def test_any_layout(layout: Callable) -> None:
    agree(drawn(7, 130, make=lambda *shape: layout(torch.randn, *shape)))


def test_rows_too_wide_for_one_tile_go_through_plain_pytorch() -> None:
    agree(drawn(2, 8200))


def test_rows_that_lie_beyond_what_32_bits_can_count() -> None:
    x, residual, weight, bias = drawn(3, 64, torch.float16)
    agree([far(x), far(residual), weight, bias])


def test_kernel_and_plain_pytorch_differ_by_one_step_at_most() -> None:
    x, residual, weight, bias = drawn(20, 333)
    for args in ((x, residual, weight, bias, EPS), (x, None, weight, bias, EPS)):
        with interpreted():
            codes, scale, kept = residual_layernorm_quantized(*args)
        expected = reference(*args)
        assert (codes.int() - expected[0].int()).abs().max() <= 1
        assert (codes == expected[0]).float().mean() > 0.999
        torch.testing.assert_close(scale, expected[1])
        torch.testing.assert_close(kept, expected[2])


def test_nan_and_infinity_show_in_the_scale_padding_is_the_bias_and_an_empty_batch_stays_empty() -> None:
    x, _, weight, bias = drawn(4, 20)
    x[0, 3], x[1, 5], x[2] = float("nan"), float("inf"), 0.0
    with interpreted():
        codes, scale, kept = residual_layernorm_quantized(x, None, weight, bias, EPS)
        empty = residual_layernorm_quantized(x[:0], None, weight, bias, EPS)
    assert scale.isnan().tolist() == [True, True, False, False]
    assert not codes[:2].any()
    torch.testing.assert_close(kept[2], bias, rtol=0, atol=0)
    assert [tensor.shape for tensor in empty] == [(0, 20), (0,), (0, 20)]


def test_opcheck_compile_and_export() -> None:
    tensors = drawn(4, 40)
    with interpreted():
        torch.library.opcheck(module._quantize, (*tensors, EPS, torch.int8, "sum"))
    compiled = torch.compile(
        lambda *t: residual_layernorm_quantized(*t, EPS)[2] * 2, fullgraph=True, backend="aot_eager"
    )
    with interpreted():
        torch.testing.assert_close(compiled(*tensors), reference(*tensors, EPS)[2] * 2)

    class Layer(torch.nn.Module):
        def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return residual_layernorm_quantized(*tensors, EPS)

    assert "limbeck.residual_layernorm_quantized" in str(torch.export.export(Layer(), tuple(tensors)).graph)


X, W = torch.zeros(2, 3), torch.zeros(3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            (X, X, W, torch.zeros(4), EPS),
            r"residual_layernorm_quantized: x is \(2, 3\), weight is \(3,\), bias is \(4,\)",
        ),
        ((X, X, W, W, EPS, torch.uint8), "codes of uint8: expected one of int8"),
        ((X, X, W, W, EPS, torch.int8, "both"), "keep is 'both': expected one of 'y', 'sum'"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        residual_layernorm_quantized(*arguments)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("most_of(y)", "most_of(z)"),
        ("BLOCK, RESIDUAL, False", "BLOCK, False, False"),
        ("(column < C)[None, :]", "(column < C + 1)[None, :]"),
    ],
)
def test_a_planted_bug_is_found(right: str, wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tensors = drawn(3, 100)
    agree(tensors)
    plant(monkeypatch, tmp_path, module, "_kernel", right, wrong)
    with pytest.raises(AssertionError):
        agree(tensors)
