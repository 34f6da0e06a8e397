"""What an operator promises of its outputs (no alias, its fake's layout) holds on every path, whatever comes in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from kernel_cases import interpreter
from torch._library.custom_ops import OPDEFS

from kernels import (
    bias_gelu,
    bias_gelu_quantized,
    distill_loss,
    early_gradient,
    hidden_loss,
    int8_gemm,
    normalise,
    quantize_rows,
    residual_layernorm,
    residual_layernorm_quantized,
)
from kernels.runtime import interpreted

pytestmark = interpreter


def turned(*shape: int) -> torch.Tensor:
    """[A, B, C] in the memory of [B, A, C], as a transformer's transposed states lie."""
    return torch.randn(shape[1], shape[0], *shape[2:]).transpose(0, 1)


def whole(*shape: int) -> torch.Tensor:
    """The same in int8."""
    return torch.randint(-128, 128, (shape[1], shape[0], *shape[2:]), dtype=torch.int8).transpose(0, 1)


WEIGHTS = (torch.randn(12), torch.randn(12))
SEED = torch.tensor([7])
STATISTICS = (torch.zeros(3, 4), torch.ones(3, 4))
CASES: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]] = {
    "bias_gelu": (bias_gelu._forward, lambda: (turned(3, 4, 12), WEIGHTS[0], "none")),
    "bias_gelu_backward": (bias_gelu._backward, lambda: (turned(3, 4, 12), turned(3, 4, 12), WEIGHTS[0], "none")),
    "residual_layernorm": (
        residual_layernorm._forward,
        lambda: (turned(3, 4, 12), turned(3, 4, 12), *WEIGHTS, 1e-5, 0.0, None),
    ),
    "residual_layernorm, dropout, no residual": (
        residual_layernorm._forward,
        lambda: (turned(3, 4, 12), None, *WEIGHTS, 1e-5, 0.3, SEED),
    ),
    "residual_layernorm_with_sum": (
        residual_layernorm._forward_with_sum,
        lambda: (turned(3, 4, 12), turned(3, 4, 12), *WEIGHTS, 1e-5, 0.3, SEED),
    ),
    "residual_layernorm_backward": (
        residual_layernorm._backward,
        lambda: (turned(3, 4, 12), None, turned(3, 4, 12), None, WEIGHTS[0], *STATISTICS, 0.0, 0.0, None),
    ),
    "residual_layernorm_backward of the sum": (
        residual_layernorm._backward,
        lambda: (turned(3, 4, 12), turned(3, 4, 12), turned(3, 4, 12), None, WEIGHTS[0], *STATISTICS, 0.0, 0.3, SEED),
    ),
    "residual_layernorm_quantized, no residual, the sum": (
        residual_layernorm_quantized._quantize,
        lambda: (turned(3, 4, 12), None, *WEIGHTS, 1e-5, torch.int8, "sum"),
    ),
    "residual_layernorm_quantized": (
        residual_layernorm_quantized._quantize,
        lambda: (torch.randn(3, 12), torch.randn(3, 12), *WEIGHTS, 1e-5, torch.int8, "y"),
    ),
    "bias_gelu_quantized": (bias_gelu_quantized._quantize, lambda: (turned(3, 4, 12), WEIGHTS[0], torch.int8, "none")),
    "quantize_rows": (quantize_rows._quantize, lambda: (turned(3, 4, 12), torch.int8)),
    "distill_loss": (
        distill_loss._forward,
        lambda: (turned(3, 4), turned(3, 4), torch.tensor([1, -100, 3]), 2.0, 0.5, 0.5, 0.1, -100, True),
    ),
    "distill_loss, no labels, no gradient": (
        distill_loss._forward,
        lambda: (turned(3, 4).half(), turned(3, 4), None, 2.0, 0.5, 0.5, 0.0, -100, False),
    ),
    "hidden_loss": (
        hidden_loss._forward,
        lambda: (turned(3, 4, 12), turned(3, 4, 12), torch.rand(4, 3).t() < 0.5, 1.0, 0.5, True),
    ),
    "hidden_loss, no mask, no gradient": (
        hidden_loss._forward,
        lambda: (turned(3, 4, 12), turned(3, 4, 12), None, 1.0, 0.0, False),
    ),
    **{
        f"early_gradient_scaled to {dtype}": (
            early_gradient._scaled,
            lambda dtype=dtype: (torch.randn(3, 12), torch.tensor(0.5), dtype),
        )
        for dtype in (torch.float32, torch.float16, torch.bfloat16)
    },
    **{
        f"int8_gemm, {activation}{', bias' * bias}{', residual' * residual}": (
            int8_gemm._multiply,
            lambda bias=bias, residual=residual, activation=activation: (
                *(whole(3, 4, 16), torch.rand(4, 3).t(), whole(12, 16), torch.rand(12)),
                *(torch.randn(12) if bias else None, turned(3, 4, 12) if residual else None, activation, torch.float32),
            ),
        )
        for bias, residual, activation in (
            (False, False, "gelu"),
            (True, False, "gelu_tanh"),
            (False, True, "none"),
            (True, True, "none"),
        )
    },
    "normalise": (
        normalise._normalise,
        lambda: (
            torch.randint(0, 256, (2, 3, 5, 6), dtype=torch.uint8).permute(0, 2, 3, 1),
            torch.ones(3),
            torch.zeros(3),
            torch.float32,
            "NHWC",
            torch.tensor([True, False]),
            None,
            None,
        ),
    ),
}


def test_every_operator_is_checked() -> None:
    registered = {name.removeprefix("limbeck::") for name in OPDEFS if name.startswith("limbeck::")}
    assert {op._qualname.removeprefix("limbeck::") for op, _ in CASES.values()} == registered


@pytest.mark.parametrize("path", ["the interpreter", "the reference"])
@pytest.mark.parametrize("name", CASES)
def test_opcheck(name: str, path: str) -> None:
    """All of its utilities; with inputs that take a gradient it is asked beside the tests of each kernel."""
    torch.manual_seed(0)
    op, make = CASES[name]
    with interpreted() if path == "the interpreter" else nullcontext():
        torch.library.opcheck(op, make())


@pytest.mark.parametrize("name", CASES)
def test_both_paths_lay_their_outputs_out_alike(name: str) -> None:
    torch.manual_seed(0)
    op, make = CASES[name]
    given = make()
    plain = op(*given)
    with interpreted():
        fused = op(*given)
    for one, other in zip(
        *((found if isinstance(found, tuple) else (found,)) for found in (plain, fused)), strict=True
    ):
        assert one.stride() == other.stride()
        assert one.dtype == other.dtype


def test_the_losses_are_in_fp32_whatever_torchs_default_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels.distill_loss import distill_loss

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with interpreted():
            found = distill_loss(torch.randn(2, 5).float(), torch.randn(2, 5).float(), torch.tensor([0, 1]), 2.0)
    finally:
        torch.set_default_dtype(before)
    assert found.loss.dtype == torch.float32
