"""Quantization of rows alone, at the widths of MiniLM and of BERT's feed-forward layers."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import quantize_rows as module
from kernels.bench.case import COMPILE, Case, Target
from kernels.bench.quantized import moved, quantize, seen, wide


def cases() -> list[Case]:
    return [_case(768, 180_224), _case(3072, 45_056)]


def _plain(x: Tensor) -> tuple[Tensor, Tensor]:
    return quantize(wide(x))


def _case(columns: int, rows: int) -> Case:
    return Case(
        kernel="quantize_rows",
        name=f"int8 from bf16 C={columns}",
        dtype=torch.bfloat16,
        rows=rows,
        make=lambda rows, device: (torch.randn(rows, columns, device=device).to(torch.bfloat16),),
        ours=module.quantize_rows,
        plain=_plain,
        moved=lambda inputs: moved(inputs[0]),
        targets=(Target("roof", 0.85), Target(COMPILE, 1.0)),
        seen=seen,
        tunes=(module.ROWS,),
        dimensions=(("C", columns),),
    )
