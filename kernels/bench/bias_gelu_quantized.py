"""bias + GELU quantized on its way out, at the feed-forward widths of MiniLM and BERT."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import bias_gelu_quantized as module
from kernels.bench.case import COMPILE, Case, Inputs, Target
from kernels.bench.quantized import moved, quantize, seen, wide


def cases() -> list[Case]:
    return [_case(3072, 65_536), _case(1536, 131_072)]


def _plain(x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return quantize(F.gelu(wide(x) + wide(bias)))


def _case(columns: int, rows: int) -> Case:
    return Case(
        kernel="bias_gelu_quantized",
        name=f"int8 from bf16 C={columns}",
        dtype=torch.bfloat16,
        rows=rows,
        make=lambda rows, device: _inputs(rows, columns, device),
        ours=module.bias_gelu_quantized,
        plain=_plain,
        moved=lambda inputs: moved(inputs[0]),
        targets=(Target("roof", 0.85), Target(COMPILE, 1.0)),
        seen=seen,
        tunes=(module.ROWS,),
        dimensions=(("C", columns),),
    )


def _inputs(rows: int, columns: int, device: torch.device) -> Inputs:
    return tuple(torch.randn(shape, device=device).to(torch.bfloat16) for shape in ((rows, columns), (columns,)))
