from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kernel_cases import COLUMNS, ROWS, far, interpreter, strided, transposed
from planted_bugs import plant
from torch import Tensor

from kernels import int8_gemm as module
from kernels.int8_gemm import int8_gemm, reference
from kernels.quantize_rows import quantize_rows
from kernels.runtime import interpreted

pytestmark = interpreter


def whole(*shape: int) -> Tensor:
    """All of int8, -128 too."""
    return torch.randint(-128, 128, shape, dtype=torch.int8)


def drawn(rows: int, columns: int, inner: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, x_scale, weight, weight_scale."""
    torch.manual_seed(rows * columns + inner)
    return whole(rows, inner), torch.rand(rows) + 0.5, whole(columns, inner), torch.rand(columns) + 0.5


def exact(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """In integers, and then fp64."""
    sums = torch.einsum("mk,nk->mn", x.long(), weight.long())
    return sums * x_scale.double().unsqueeze(1) * weight_scale.double()


def agree(rows: int, columns: int, inner: int) -> None:
    """Sums are exact: with scales that are powers of two, so is the product."""
    x, _, weight, _ = drawn(rows, columns, inner)
    x_scale, weight_scale = 2.0 ** torch.arange(rows).remainder(5), 2.0 ** -torch.arange(columns).remainder(7)
    with interpreted():
        y = int8_gemm(x, x_scale, weight, weight_scale, dtype=torch.float32)
    expected = exact(x, x_scale, weight, weight_scale)
    torch.testing.assert_close(y.double(), expected.float().double(), rtol=0, atol=0)


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("rows", ROWS)
def test_every_number_of_columns(rows: int, columns: int) -> None:
    agree(rows, columns, 40)


@pytest.mark.parametrize("inner", COLUMNS)
@pytest.mark.parametrize("rows", ROWS)
def test_every_length_of_a_sum(rows: int, inner: int) -> None:
    agree(rows, 17, inner)


def test_more_rows_of_tiles_than_a_group_has() -> None:
    tiles = module.TILES.forced({"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_K": 32, "num_warps": 4, "num_stages": 3})
    with tiles:
        agree(16 * 11 + 5, 70, 40)


def test_the_longest_sum_does_not_overflow() -> None:
    x = torch.full((2, module.LONGEST), -128, dtype=torch.int8)
    one = torch.ones(2)
    with interpreted():
        y = int8_gemm(x, one, x, one, dtype=torch.float32)
    assert (y == module.LONGEST * 2**14).all()
    longer = torch.zeros(1, module.LONGEST + 1, dtype=torch.int8)
    with pytest.raises(ValueError, match="K is 131,072: sums of more than 131,071 products may overflow"):
        int8_gemm(longer, one[:1], longer, one[:1])


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 2e-6), (torch.float16, 1e-3), (torch.bfloat16, 1.6e-2)])
@pytest.mark.parametrize("after", ["bias", "gelu", "gelu_tanh", "residual", "nothing"])
def test_what_follows_the_product(after: str, dtype: torch.dtype, rtol: float) -> None:
    x, x_scale, weight, weight_scale = drawn(5, 70, 130)
    x_scale = x_scale / 5e4
    bias = None if after == "nothing" else torch.randn(70).to(dtype if after == "bias" else torch.float32)
    residual = torch.randn(5, 70).to(dtype) if after == "residual" else None
    activation = after if "gelu" in after else "none"
    with interpreted():
        y = int8_gemm(x, x_scale, weight, weight_scale, bias, residual, activation, dtype)
    assert y.dtype == dtype
    expected = exact(x, x_scale, weight, weight_scale)
    expected = expected if bias is None else expected + bias.double()
    if activation != "none":
        approximate = "tanh" if activation == "gelu_tanh" else "none"
        expected = torch.nn.functional.gelu(expected, approximate=approximate)
    expected = expected if residual is None else expected + residual.double()
    torch.testing.assert_close(y.double(), expected, rtol=rtol, atol=rtol)
    plain = reference(x, x_scale, weight, weight_scale, bias, residual, activation, dtype)
    torch.testing.assert_close(y.double(), plain.double(), rtol=rtol, atol=rtol)


def test_a_quantized_layer_is_about_the_layer() -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(256, 64), torch.randn(2, 9, 256)
    with interpreted(), torch.no_grad():
        y = int8_gemm(*quantize_rows(x), *quantize_rows(layer.weight), layer.bias, dtype=torch.float32)
        right = layer(x)
    assert (y - right).norm() / right.norm() < 0.02
    assert y.shape == (2, 9, 64)


@pytest.mark.parametrize("layout", [strided, transposed])
def test_any_layout(layout) -> None:
    torch.manual_seed(1)
    x, weight = (layout(whole, *shape) for shape in ((7, 50), (20, 50)))
    residual = layout(torch.randn, 7, 20)
    scales = torch.rand(14)[::2], torch.rand(20)
    with interpreted():
        y = int8_gemm(x, scales[0], weight, scales[1], residual=residual, dtype=torch.float32)
    torch.testing.assert_close(y.double(), exact(x, scales[0], weight, scales[1]) + residual, rtol=2e-6, atol=1e-5)


def test_rows_that_lie_beyond_what_32_bits_can_count() -> None:
    x, x_scale, weight, weight_scale = drawn(3, 3, 64)
    with interpreted():
        y = int8_gemm(far(x), x_scale, far(weight), weight_scale, dtype=torch.float32)
    torch.testing.assert_close(y.double(), exact(x, x_scale, weight, weight_scale), rtol=2e-6, atol=0)


def test_an_empty_batch_and_a_row_without_codes() -> None:
    x, x_scale, weight, weight_scale = drawn(3, 20, 40)
    x[1], x_scale[1] = 0, float("nan")  # as quantize_rows says that a row had NaN or infinity
    with interpreted():
        empty = int8_gemm(x[:0], x_scale[:0], weight, weight_scale)
        y = int8_gemm(x, x_scale, weight, weight_scale, dtype=torch.float32)
    assert empty.shape == (0, 20)
    assert y.isnan().any(dim=1).tolist() == [False, True, False]
    assert y[1].isnan().all()


def test_opcheck_compile_and_export() -> None:
    tensors = drawn(4, 20, 40)
    bias, residual = torch.randn(20), torch.randn(4, 20).half()
    with interpreted():
        small = tensors[0], tensors[1] / 5e4, *tensors[2:]  # fp16 ends at 65,504
        for after in (
            (None, None, "gelu"),
            (bias, None, "gelu_tanh"),
            (bias.half(), residual, "none"),
            (None, residual, "none"),
        ):
            torch.library.opcheck(module._multiply, (*small, *after, torch.float16))
    compiled = torch.compile(lambda *t: int8_gemm(*t) * 2, fullgraph=True, backend="aot_eager")
    with interpreted():
        torch.testing.assert_close(compiled(*tensors), reference(*tensors) * 2)

    class Layer(torch.nn.Module):
        def forward(self, *tensors: Tensor) -> Tensor:
            return int8_gemm(*tensors)

    assert "limbeck.int8_gemm" in str(torch.export.export(Layer(), tensors).graph)


X, W, ONE, TWO = torch.zeros(2, 8).char(), torch.zeros(3, 8).char(), torch.ones(3), torch.ones(2)


@pytest.mark.parametrize(
    ("arguments", "named", "said"),
    [
        ((X, TWO, W[:, :4], ONE), {}, r"x is \(2, 8\) and weight \(3, 4\): expected \[..., K\] and \[N, K\]"),
        ((X.float(), TWO, W, ONE), {}, r"x is float32 \(2, 8\) on cpu: expected int8 \(2, 8\)"),
        ((X, TWO, W.byte(), ONE), {}, "weight is uint8"),
        ((X, ONE, W, ONE), {}, r"x_scale is float32 \(3,\) on cpu: expected float32 \(2,\)"),
        ((X, TWO, W, ONE.half()), {}, r"weight_scale is float16 \(3,\)"),
        ((X, TWO, W, ONE, TWO), {}, r"bias is float32 \(2,\) on cpu: expected bfloat16 or float32 \(3,\)"),
        ((X, TWO, W, ONE), {"residual": torch.ones(2, 3)}, r"residual is float32 \(2, 3\) on cpu: expected bfloat16"),
        ((X, TWO, W, ONE), {"residual": torch.ones(3).bfloat16()}, r"residual is bfloat16 \(3,\)"),
        ((X, TWO, W, ONE), {"activation": "relu"}, "activation is 'relu': expected one of 'none', 'gelu', 'gelu_tanh'"),
        ((X, TWO, W, ONE), {"residual": torch.ones(2, 3), "activation": "gelu"}, "expected one of them at most"),
        ((X, TWO, W, ONE), {"dtype": torch.float64}, "dtype is float64: expected one of bfloat16, float16, float32"),
        ((X[:, :0], TWO, W[:, :0], ONE), {}, r"weight \(3, 0\): expected"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple, named: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        int8_gemm(*arguments, **named)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("other=0)", "other=1)"),  # what lies beyond the end of a sum
        ("weight_at += BLOCK_K", "weight_at += 0"),
        ("tl.minimum(tiles_m - group * GROUP, GROUP)", "GROUP"),
        ("* weight_scale[None, :]", ""),
    ],
)
def test_a_planted_bug_is_found(right: str, wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    agree(33, 70, 300)
    plant(monkeypatch, tmp_path, module, "_kernel", right, wrong)
    with pytest.raises(AssertionError):
        agree(33, 70, 300)
