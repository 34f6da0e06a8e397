"""Quantization to int8 with a scale for each row, as a user writes it, and how results of it are compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_STEP = 0.9e-6  # of fp32's absolute tolerance of 1e-6: a code beside the right one, as from a tie, is just tolerated


def wide(x: Tensor) -> Tensor:
    """In fp32, or fp64 as it is: what comes before quantization is never rounded to half precision."""
    return x if x.dtype == torch.float64 else x.float()


def quantize(y: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [..., C] int8 and scale [...]."""
    scale = y.abs().amax(dim=-1) / 127
    return torch.round(y / scale[..., None]).clamp(-127, 127).to(torch.int8), scale


def seen(found: Any) -> list[Tensor]:
    """Codes in steps, scales, and what comes besides."""
    codes, scale, *rest = found
    return [codes.float() * _STEP, scale, *rest]


def moved(x: Tensor, reads: int = 1, writes: int = 0) -> int:
    """Bytes: x read so often and written so often, its codes and a scale a row written."""
    return (reads + writes) * x.nbytes + x.numel() + 4 * (x.numel() // x.shape[-1])
