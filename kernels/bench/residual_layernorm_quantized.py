"""residual + LayerNorm, written in bf16 and as int8 for the next product, at the widths of MiniLM and BERT."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import residual_layernorm_quantized as module
from kernels.bench.case import COMPILE, Case, Inputs, Target
from kernels.bench.quantized import moved, quantize, seen, wide

EPS = 1e-12  # BERT's


def cases() -> list[Case]:
    return [_case(768, 180_224), _case(384, 360_448)]


def _ours(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return module.residual_layernorm_quantized(x, residual, weight, bias, EPS)


def _plain(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = F.layer_norm(wide(residual) + wide(x), x.shape[-1:], wide(weight), wide(bias), EPS)
    return *quantize(y), y.to(x.dtype)


def _case(columns: int, rows: int) -> Case:
    return Case(
        kernel="residual_layernorm_quantized",
        name=f"int8 and bf16 from bf16 C={columns}",
        dtype=torch.bfloat16,
        rows=rows,
        make=lambda rows, device: _inputs(rows, columns, device),
        ours=_ours,
        plain=_plain,
        moved=lambda inputs: moved(inputs[0], reads=2, writes=1),
        targets=(Target("roof", 0.88), Target(COMPILE, 1.15)),
        seen=seen,
        tunes=(module.ROWS,),
        dimensions=(("C", columns),),
    )


def _inputs(rows: int, columns: int, device: torch.device) -> Inputs:
    shapes = (rows, columns), (rows, columns), (columns,), (columns,)
    return tuple(torch.randn(shape, device=device).to(torch.bfloat16) for shape in shapes)
