"""residual + LayerNorm after each half of a block, without dropout, at the widths of MiniLM, BERT and ViT."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import residual_layernorm as module
from kernels.bench.case import COMPILE, EAGER, Case, Inputs, Target
from kernels.layernorm_backward import BACKWARD
from kernels.layernorm_forward import FORWARD

EPS = 1e-12  # BERT's


def cases() -> list[Case]:
    rows = {192: 720_896, 384: 360_448, 768: 180_224, 1024: 135_168}
    return [
        *(_forward(columns, rows[columns]) for columns in (384, 768)),
        *(_backward(columns, rows[columns]) for columns in (384, 768)),
        _forward(1024, rows[1024]),
        *(_backward(columns, rows[columns]) for columns in (192, 1024)),
    ]


def _ours(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return module.residual_layernorm(x, residual, weight, bias, EPS)


def _plain(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(residual + x, x.shape[-1:], weight, bias, EPS)


def _liger() -> Callable[..., Tensor]:
    from liger_kernel.transformers.functional import liger_layer_norm

    return lambda x, residual, weight, bias: liger_layer_norm(residual + x, weight, bias, EPS)


def _forward(columns: int, rows: int) -> Case:
    return Case(
        kernel="residual_layernorm",
        name=f"forward bf16 C={columns}",
        dtype=torch.bfloat16,
        rows=rows,
        make=lambda rows, device: _inputs(rows, columns, device),
        ours=_ours,
        plain=_plain,
        moved=lambda inputs: 3 * inputs[0].nbytes,  # x and residual are read, y written
        summed=8,
        targets=(Target("roof", 0.88), Target(COMPILE, 0.98)),
        liger=_liger,
        tunes=(FORWARD,),
        dimensions=(("C", columns),),
    )


def _backward(columns: int, rows: int) -> Case:
    return Case(
        kernel="residual_layernorm",
        name=f"backward bf16 C={columns}",
        dtype=torch.bfloat16,
        rows=rows,
        make=lambda rows, device: _inputs(rows, columns, device),
        ours=_ours,
        plain=_plain,
        moved=lambda inputs: 4 * inputs[0].nbytes,  # dy, x and residual are read, dz written for both
        mode="backward",
        leaves=(0, 1, 2, 3),
        summed=8,
        sums=(2, 3),
        targets=(Target("roof", 0.75), Target(EAGER, 1.0)),
        liger=_liger,
        tunes=(BACKWARD,),
        dimensions=(("C", columns),),
    )


def _inputs(rows: int, columns: int, device: torch.device) -> Inputs:
    shapes = (rows, columns), (rows, columns), (columns,), (columns,)
    return tuple(torch.randn(shape, device=device).to(torch.bfloat16) for shape in shapes)
