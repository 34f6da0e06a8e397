"""Quantization of rows as they are (per token), where no producer could do it on its way out.

    scale = max |x| / 127,  codes = round(x / scale)          (per-token scales: Yao et al. 2022, arXiv 2206.01861)

x [..., C] to codes [..., C] and scale fp32 [...]. One read and half a write: prefer the producers that quantize what
they write, `bias_gelu_quantized` and `residual_layernorm_quantized`.
"""

from __future__ import annotations

import torch

from kernels import quantize_kernels, row_scales, row_tiles
from kernels.ahead import Build
from kernels.arguments import check_same, rows_of
from kernels.row_scales import check_codes, converts
from kernels.runtime import runs_triton
from kernels.tuning import Tunable

ROWS = Tunable("quantize_rows", row_tiles.sizes, row_tiles.tried)
TUNABLES = (ROWS,)


def quantize_rows(x: torch.Tensor, dtype: torch.dtype = torch.int8) -> tuple[torch.Tensor, torch.Tensor]:
    """codes of `dtype` (int8 or float8_e4m3fn), x's shape, and scale fp32 [...]: x is about codes * scale.

    A row with NaN or infinity gets the scale NaN. For inference: it has no gradient. Raises ValueError for a dtype that
    is not known and for x without columns.
    """
    return _quantize(x, dtype)


def reference(x: torch.Tensor, dtype: torch.dtype = torch.int8) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in plain PyTorch."""
    return row_scales.reference(x, dtype)


def builds() -> list[Build]:
    """The widths of MiniLM, BERT and of feed-forward layers."""
    return quantize_kernels.builds("quantize_rows", "", ROWS, (384, 768, 3072, 16384), bias=False)


@torch.library.custom_op("limbeck::quantize_rows", mutates_args=())
def _quantize(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    check_codes("quantize_rows", dtype)
    check_same("quantize_rows", x=x)
    if x.ndim < 1 or not x.shape[-1]:
        raise ValueError(f"quantize_rows: x is {tuple(x.shape)}: expected [..., C]")
    if x.dtype == torch.float64 or not runs_triton(x) or not converts(dtype, x.device):
        found = reference(x, dtype)
        return found[0].contiguous(), found[1].contiguous()  # in the layout that the kernel gives
    if not x.numel():
        return torch.empty_like(x, dtype=dtype), x.new_empty(x.shape[:-1], dtype=torch.float32)
    codes, scale = quantize_kernels.launch(rows_of(x), None, "", dtype, ROWS)
    return codes.view(x.shape), scale.view(x.shape[:-1])


@_quantize.register_fake
def _(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty(x.shape, dtype=dtype, device=x.device), x.new_empty(x.shape[:-1], dtype=torch.float32)
