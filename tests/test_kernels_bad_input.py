"""What may be wrong with what an operator is given: each argument of each, one after the other.

Wrong dtypes and shapes are a ValueError; strides of any kind, 0 too, and empty batches come out right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_cases import interpreter
from torch import Tensor

from kernels.bias_gelu import bias_gelu
from kernels.bias_gelu_quantized import bias_gelu_quantized
from kernels.distill_loss import distill_loss
from kernels.hidden_loss import hidden_loss
from kernels.int8_gemm import int8_gemm
from kernels.normalise import normalise
from kernels.quantize_rows import quantize_rows
from kernels.residual_layernorm import residual_layernorm, residual_layernorm_with_sum
from kernels.residual_layernorm_quantized import residual_layernorm_quantized
from kernels.runtime import interpreted

pytestmark = interpreter
ROWS, COLUMNS, INNER = 3, 12, 16
Arguments = dict[str, Tensor]


def floats(*shape: int) -> Tensor:
    return torch.randn(*shape)


def codes(*shape: int) -> Tensor:
    return torch.randint(-127, 128, shape, dtype=torch.int8)


def layer(rows: int) -> Arguments:
    x, residual = floats(rows, COLUMNS), floats(rows, COLUMNS)
    return {"x": x, "residual": residual, "weight": floats(COLUMNS), "bias": floats(COLUMNS)}


def images(rows: int) -> Arguments:
    return {
        "images": torch.randint(0, 256, (rows, 4, 5, 3), dtype=torch.uint8),
        "scale": torch.rand(3),
        "shift": torch.rand(3),
        "flip": torch.rand(rows) < 0.5,
        "partner": torch.arange(rows).flip(0),
        "share": torch.rand(rows),
    }


def product(rows: int) -> Arguments:
    x, weight = codes(rows, INNER), codes(COLUMNS, INNER)
    scales = {"x_scale": torch.rand(rows), "weight_scale": torch.rand(COLUMNS)}
    return {"x": x, "weight": weight, **scales, "bias": floats(COLUMNS), "residual": floats(rows, COLUMNS).bfloat16()}


# an operator, its tensors for so many rows, and its other arguments
OPERATORS: dict[str, tuple[Callable[..., Any], Callable[[int], Arguments], dict[str, Any]]] = {
    "bias_gelu": (bias_gelu, lambda rows: {"x": floats(rows, COLUMNS), "bias": floats(COLUMNS)}, {}),
    "residual_layernorm": (
        residual_layernorm,
        lambda rows: layer(rows) | {"seed": torch.tensor([7])},
        {"eps": 1e-5, "p": 0.3},
    ),
    "residual_layernorm_with_sum": (residual_layernorm_with_sum, layer, {"eps": 1e-5}),
    "distill_loss": (
        distill_loss,
        lambda rows: {
            "student": floats(rows, COLUMNS),
            "teacher": floats(rows, COLUMNS),
            "labels": torch.arange(rows) + 1,
        },
        {"temperature": 2.0},
    ),
    "hidden_loss": (
        hidden_loss,
        lambda rows: {
            "student": floats(rows, 4, COLUMNS),
            "teacher": floats(rows, 4, COLUMNS),
            "mask": torch.rand(rows, 4) < 0.7,
        },
        {"cosine_weight": 0.5},
    ),
    "residual_layernorm_quantized": (residual_layernorm_quantized, layer, {"eps": 1e-5}),
    "bias_gelu_quantized": (
        bias_gelu_quantized,
        lambda rows: {"x": floats(rows, COLUMNS), "bias": floats(COLUMNS)},
        {},
    ),
    "quantize_rows": (quantize_rows, lambda rows: {"x": floats(rows, COLUMNS)}, {}),
    "int8_gemm": (int8_gemm, product, {}),
    "normalise": (normalise, images, {}),
}
ANY_AXES = {("bias_gelu", "x"), ("bias_gelu_quantized", "x"), ("residual_layernorm", "seed")}  # in front of the last
PLACES = [(name, place) for name, (_, make, _) in OPERATORS.items() for place in make(ROWS)]


def called(name: str, tensors: Arguments) -> list[Tensor]:
    operator, _, settings = OPERATORS[name]
    with interpreted():
        found = operator(**tensors, **settings)
    return [each for each in (found if isinstance(found, tuple) else (found,)) if isinstance(each, Tensor)]


def drawn(name: str, rows: int = ROWS) -> Arguments:
    torch.manual_seed(0)
    return OPERATORS[name][1](rows)


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_a_wrong_dtype_is_refused(name: str, place: str) -> None:
    tensors = drawn(name)
    wrong = torch.int32 if tensors[place].is_floating_point() else torch.float32
    with pytest.raises(ValueError, match=rf"{name.removesuffix('_with_sum')}: .*(int32|float32)"):
        called(name, tensors | {place: tensors[place].to(wrong)})


@pytest.mark.parametrize(
    ("name", "place"), [each for each in PLACES if each[0] != "quantize_rows"]
)  # it has one tensor
def test_a_shape_that_does_not_match_is_refused(name: str, place: str) -> None:
    tensors = drawn(name)
    longer = torch.cat([tensors[place], tensors[place][..., :1]], dim=-1)
    for wrong in (longer,) if (name, place) in ANY_AXES else (longer, tensors[place][None]):
        with pytest.raises(ValueError, match="expected"):
            called(name, tensors | {place: wrong})


@pytest.mark.parametrize("way", ["every second", "stride 0", "transposed"])
@pytest.mark.parametrize(("name", "place"), PLACES)
def test_any_strides_are_right(name: str, place: str, way: str) -> None:
    tensors = drawn(name)
    given = tensors[place]
    if way == "every second":
        odd = torch.stack([given, given.flip(-1)], dim=-1)[..., 0]
    elif way == "stride 0":
        odd = given[..., :1].expand(given.shape) if given.ndim == 1 else given[:1].expand(given.shape)
    else:
        odd = given.transpose(0, -1).contiguous().transpose(0, -1)
    assert place == "seed" or given.ndim == 1 or not odd.is_contiguous()
    found = called(name, tensors | {place: odd})
    for one, other in zip(found, called(name, tensors | {place: odd.contiguous().clone()}), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_empty_batch_is_empty_or_nothing(name: str) -> None:
    for found in called(name, drawn(name, 0)):
        assert found.shape[:1] == (0,) if name not in ("distill_loss", "hidden_loss") else not found.any()
