"""int8 products of a batch of 256 texts of 128 tokens through the feed-forward layers of MiniLM and BERT.

Once alone, against the rate of `torch._int_mm`; once with the quantization of its input, against that layer in bf16.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import int8_gemm as module
from kernels.bench.case import COMPILE, Case, Inputs, Target
from kernels.bench.quantized import quantize, wide
from kernels.quantize_rows import quantize_rows

ROWS = 32_768


def cases() -> list[Case]:
    return [_alone(3072, 768), _layer(3072, 768), _alone(1536, 384)]


def _multiply(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
    return module.int8_gemm(x, x_scale, weight, weight_scale, bias, activation="gelu")


def _plain_multiply(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
    sums = torch._int_mm(x, weight.t()).to(x_scale.dtype)
    return F.gelu(sums * x_scale[:, None] * weight_scale + wide(bias)).to(bias.dtype)


def _quantized_layer(x: Tensor, weight: Tensor, codes: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return _multiply(*quantize_rows(x), codes, scale, bias)


def _layer_of_codes(x: Tensor, weight: Tensor, codes: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """What the quantized layer is to give: the error of quantization itself is no error here."""
    given, x_scale = quantize(wide(x))
    weights = codes.to(scale.dtype) * scale[:, None]
    return F.gelu((given.to(x_scale.dtype) * x_scale[:, None]) @ weights.t() + wide(bias)).to(bias.dtype)


def _plain_layer(x: Tensor, weight: Tensor, codes: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(F.linear(x, weight, bias))


def _alone(columns: int, inner: int) -> Case:
    return Case(
        kernel="int8_gemm",
        name=f"with bias and GELU N={columns} K={inner}",
        dtype=torch.int8,
        rows=ROWS,
        make=lambda rows, device: _codes(rows, columns, inner, device),
        ours=_multiply,
        plain=_plain_multiply,
        moved=lambda inputs: 2 * inputs[0].shape[0] * columns * inner,
        fixed=True,
        roof="int8",
        targets=(Target("roof", 0.75),),
        tunes=(module.TILES,),
        dimensions=(("M", ROWS), ("N", columns), ("K", inner)),
    )


def _layer(columns: int, inner: int) -> Case:
    return Case(
        kernel="int8_gemm",
        name=f"a layer from bf16 N={columns} K={inner}",
        dtype=torch.bfloat16,
        rows=ROWS,
        make=lambda rows, device: _layer_inputs(rows, columns, inner, device),
        ours=_quantized_layer,
        plain=_plain_layer,
        reference=_layer_of_codes,
        moved=lambda inputs: 2 * inputs[0].shape[0] * columns * inner,
        fixed=True,
        tolerated=8.0,  # an activation between two codes may get the other one
        roof="int8",
        targets=(Target(COMPILE, 1.25),),
    )


def _codes(rows: int, columns: int, inner: int, device: torch.device) -> Inputs:
    x, weight = (torch.randint(-127, 128, (size, inner), dtype=torch.int8, device=device) for size in (rows, columns))
    x_scale = torch.rand(rows, device=device) / 100 + 0.01
    weight_scale = (torch.rand(columns, device=device) + 1) / (127 * inner**0.5)
    return x, x_scale, weight, weight_scale, torch.randn(columns, device=device).to(torch.bfloat16)


def _layer_inputs(rows: int, columns: int, inner: int, device: torch.device) -> Inputs:
    x = torch.randn(rows, inner, device=device).to(torch.bfloat16)
    weight = (torch.randn(columns, inner, device=device) / inner**0.5).to(torch.bfloat16)
    codes, scale = quantize(weight.float())
    return x, weight, codes, scale, torch.randn(columns, device=device).to(torch.bfloat16)
