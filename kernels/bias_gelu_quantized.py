"""Bias + GELU, quantized on its way out: the input of a feed-forward layer's second product in int8 or fp8.

    codes, scale = quantized(gelu(x + bias)),  one scale a row

x, codes [..., C], bias [C], scale fp32 [...]. What would be written in bf16 and read again to be quantized never leaves
the registers: 3 bytes an element instead of 9. For inference: it has no gradient.
"""

from __future__ import annotations

import torch

from kernels import quantize_kernels, row_scales, row_tiles
from kernels.ahead import Build
from kernels.arguments import check_affine, check_same, rows_of
from kernels.gelu import check_approximation
from kernels.row_scales import check_codes, converts
from kernels.runtime import runs_triton
from kernels.tuning import Tunable

ROWS = Tunable("bias_gelu_quantized", row_tiles.sizes, row_tiles.tried)
TUNABLES = (ROWS,)


def bias_gelu_quantized(
    x: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype = torch.int8, approximate: str = "none"
) -> tuple[torch.Tensor, torch.Tensor]:
    """codes of `dtype` (int8 or float8_e4m3fn) and scale fp32 [...] of gelu(x + bias), which is about codes * scale.

    bias has x's dtype or is fp32. A row with NaN or infinity gets the scale NaN. Raises ValueError for what does not
    fit.
    """
    return _quantize(x, bias, dtype, approximate)


def reference(
    x: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype = torch.int8, approximate: str = "none"
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in plain PyTorch, computed in fp32."""
    return row_scales.reference(torch.nn.functional.gelu(x.float() + bias.float(), approximate=approximate), dtype)


def builds() -> list[Build]:
    """The feed-forward widths of MiniLM, BERT, ViT-L and larger ones, and one with tanh."""
    widths = 1536, 3072, 4096, 8192
    exact = quantize_kernels.builds("bias_gelu_quantized", "gelu", ROWS, widths, bias=True)
    return exact + quantize_kernels.builds("bias_gelu_quantized tanh", "gelu tanh", ROWS, (3072,), bias=True)


@torch.library.custom_op("limbeck::bias_gelu_quantized", mutates_args=())
def _quantize(
    x: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype, approximate: str
) -> tuple[torch.Tensor, torch.Tensor]:
    op = "bias_gelu_quantized"
    check_codes(op, dtype)
    check_approximation(op, approximate)
    if x.ndim < 1 or not x.shape[-1] or bias.shape != x.shape[-1:]:
        raise ValueError(f"{op}: x is {tuple(x.shape)} and bias {tuple(bias.shape)}: expected [..., C] and [C]")
    check_same(op, x=x)
    check_affine(op, x, bias=bias)
    if x.dtype == torch.float64 or not runs_triton(x) or not converts(dtype, x.device):
        found = reference(x, bias, dtype, approximate)
        return found[0].contiguous(), found[1].contiguous()  # in the layout that the kernel gives
    if not x.numel():
        return torch.empty_like(x, dtype=dtype), x.new_empty(x.shape[:-1], dtype=torch.float32)
    change: quantize_kernels.Change = "gelu tanh" if approximate == "tanh" else "gelu"
    codes, scale = quantize_kernels.launch(rows_of(x), bias.contiguous(), change, dtype, ROWS)
    return codes.view(x.shape), scale.view(x.shape[:-1])


@_quantize.register_fake
def _(x: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype, approximate: str) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty(x.shape, dtype=dtype, device=x.device), x.new_empty(x.shape[:-1], dtype=torch.float32)
