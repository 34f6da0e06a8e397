"""bias + GELU at the feed-forward widths of MiniLM and BERT; 32,768 tokens are a batch of 256 texts of 128."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kernels import bias_gelu as module
from kernels.bench.case import COMPILE, EAGER, Case, Inputs, Target


def cases() -> list[Case]:
    return [_forward(1536, 131_072), _forward(3072, 65_536), _backward(1536, 131_072), _backward(3072, 65_536)]


def _plain(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return F.gelu(x + bias)


def _forward(columns: int, rows: int) -> Case:
    return Case(
        kernel="bias_gelu",
        name=f"forward bf16 C={columns}",
        dtype=torch.bfloat16,
        rows=rows,
        make=lambda rows, device: _inputs(rows, columns, device),
        ours=module.bias_gelu,
        plain=_plain,
        moved=lambda inputs: 2 * inputs[0].nbytes,  # x is read, y written
        targets=(Target("roof", 0.85), Target(COMPILE, 1.0)),
        tunes=(module.FORWARD,),
        dimensions=(("C", columns),),
    )


def _backward(columns: int, rows: int) -> Case:
    return Case(
        kernel="bias_gelu",
        name=f"backward bf16 C={columns}",
        dtype=torch.bfloat16,
        rows=rows,
        make=lambda rows, device: _inputs(rows, columns, device),
        ours=module.bias_gelu,
        plain=_plain,
        moved=lambda inputs: 3 * inputs[0].nbytes,  # x and dy are read, dx written
        mode="backward",
        leaves=(0, 1),
        sums=(1,),
        targets=(Target("roof", 0.75), Target(EAGER, 1.0)),
        tunes=(module.BACKWARD,),
        dimensions=(("C", columns),),
    )


def _inputs(rows: int, columns: int, device: torch.device) -> Inputs:
    return tuple(torch.randn(shape, device=device).to(torch.bfloat16) for shape in ((rows, columns), (columns,)))
