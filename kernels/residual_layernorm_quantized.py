"""Residual + LayerNorm whose output is quantized on its way out: the input of the next product in int8 or fp8.

    z = residual + x,  y = LayerNorm(z),  codes, scale = quantized(y),  one scale a row

x, residual, y, z, codes [..., C], weight, bias [C], scale fp32 [...]. The next half of the block needs y itself too
where the norm comes last (BERT), or z where it comes first (ViT): `keep` says which is written besides. For inference:
no dropout, no gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kernels import residual_layernorm_reference as plain
from kernels import row_scales
from kernels.ahead import Build
from kernels.arguments import rows_of
from kernels.layernorm_forward import load_sum, normalised
from kernels.quantize_kernels import ONE_TILE
from kernels.residual_layernorm import check
from kernels.row_scales import FP8_OLDEST, LIMITS, check_codes, codes_of, converts, most_of, scale_of
from kernels.row_tiles import block_of, fewer_rows, sizes, tried
from kernels.runtime import jit, runs_triton, tl, triton
from kernels.tuning import Sizes, Tunable

Keep = Literal["y", "sum"]
KEEPS = ("y", "sum")
ROWS = Tunable("residual_layernorm_quantized", sizes, tried)
TUNABLES = (ROWS,)


def residual_layernorm_quantized(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype = torch.int8,
    keep: Keep = "y",
) -> tuple[Tensor, Tensor, Tensor]:
    """codes of `dtype` (int8 or float8_e4m3fn) and scale fp32 [...] of y, and what is kept besides, in x's dtype.

    x and residual have one dtype; weight and bias have it too, or are fp32. A row with NaN or infinity gets the scale
    NaN. Raises ValueError for what does not fit.
    """
    return _quantize(x, residual, weight, bias, eps, dtype, keep)


def reference(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype = torch.int8,
    keep: Keep = "y",
) -> tuple[Tensor, Tensor, Tensor]:
    """The same in plain PyTorch, computed in fp32."""
    z = plain.sum_of(x, residual, 0.0, None)
    summed = z.to(x.dtype, copy=True)  # an operator must not give back what it was given
    if keep == "sum":
        z = summed.to(z.dtype)  # what is passed on is what is normalised
    y = torch.nn.functional.layer_norm(z, x.shape[-1:], weight.to(z.dtype), bias.to(z.dtype), eps)
    codes, scale = row_scales.reference(y, dtype)
    return codes, scale, summed if keep == "sum" else y.to(x.dtype)


def builds() -> list[Build]:
    """The widths of MiniLM, BERT and ViT; fp8 and the other kinds of `keep` for one of them."""
    kinds: list[tuple[str, torch.dtype, int, Keep]]
    kinds = [(read, torch.int8, columns, "y") for columns in (384, 768, 1024) for read in ("bf16", "fp16")]
    kinds += [("bf16", torch.float8_e4m3fn, 768, "y"), ("bf16", torch.int8, 768, "sum")]
    return [_build(*kind, chosen) for kind in kinds for chosen in ROWS.committed(kind[0], C=kind[2])]


@torch.library.custom_op("limbeck::residual_layernorm_quantized", mutates_args=())
def _quantize(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype, keep: str
) -> tuple[Tensor, Tensor, Tensor]:
    op = "residual_layernorm_quantized"
    check(op, x, residual, weight, bias, eps)
    check_codes(op, dtype)
    if keep not in KEEPS:
        raise ValueError(f"{op}: keep is {keep!r}: expected one of {', '.join(map(repr, KEEPS))}")
    on_gpu = x.dtype != torch.float64 and runs_triton(x) and converts(dtype, x.device)
    if not on_gpu or x.shape[-1] > ONE_TILE:
        found = reference(x, residual, weight, bias, eps, dtype, keep)  # type: ignore[arg-type]
        return (
            found[0].contiguous(),
            found[1].contiguous(),
            found[2].contiguous(),
        )  # in the layout that the kernel gives
    codes, scale, kept = _outputs(x, dtype)
    if x.numel():
        other = None if residual is None else rows_of(residual)
        _launch(rows_of(x), other, weight, bias, eps, (codes, scale, kept), keep)
    return codes, scale, kept


@_quantize.register_fake
def _(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype, keep: str
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(x, dtype)


def _outputs(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    codes = torch.empty(x.shape, dtype=dtype, device=x.device)
    scale = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    return codes, scale, torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _launch(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, out: tuple[Tensor, ...], keep: str
) -> None:
    (count, columns), other = x.shape, x if residual is None else residual
    chosen = ROWS.sizes(x, C=columns)
    rows = fewer_rows(chosen["ROWS"], count, x.device)
    _kernel[(triton.cdiv(count, rows),)](
        *(x, other, weight.contiguous(), bias.contiguous(), *out, count, x.stride(0), other.stride(0), eps),
        *(columns, rows, block_of(columns), residual is not None, keep == "sum", LIMITS[out[0].dtype]),
        num_warps=chosen["num_warps"],
        num_stages=chosen["num_stages"],
    )


@jit
def _kernel(
    x_ptr, residual_ptr, weight_ptr, bias_ptr, codes_ptr, scale_ptr, kept_ptr, count, stride, residual_stride, eps,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, RESIDUAL: tl.constexpr, SUM: tl.constexpr,
    LIMIT: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # int64: M * C may pass 2^31
    column = tl.arange(0, BLOCK)
    inside = (row < count)[:, None] & (column < C)[None, :]
    at = row[:, None] * C + column[None, :]
    z = load_sum(x_ptr, residual_ptr, x_ptr, row, 0, inside, stride, residual_stride, 0, 1.0, BLOCK, RESIDUAL, False)
    if SUM:
        rounded = z.to(kept_ptr.dtype.element_ty)
        tl.store(kept_ptr + at, rounded, mask=inside)
        z = rounded.to(tl.float32)
    y, _, _ = normalised(z, weight_ptr, bias_ptr, column, inside, eps, C)
    if not SUM:
        tl.store(kept_ptr + at, y, mask=inside)
    scale = scale_of(most_of(y), LIMIT)
    tl.store(codes_ptr + at, codes_of(y, scale, LIMIT), mask=inside)
    tl.store(scale_ptr + row, scale, mask=row < count)


def _build(read: str, codes: torch.dtype, columns: int, keep: Keep, chosen: Sizes) -> Build:
    pointers = {f"{name}_ptr": f"*{read}" for name in ("x", "residual", "weight", "bias", "kept")}
    pointers |= {"codes_ptr": "*i8" if codes == torch.int8 else "*fp8e4nv", "scale_ptr": "*fp32"}
    numbers = {"count": "i32", "stride": "i32", "residual_stride": "i32", "eps": "fp32"}
    shape = {"C": columns, "BLOCK": block_of(columns), "RESIDUAL": True, "SUM": keep == "sum"}
    return Build.sized(
        f"residual_layernorm_quantized {read} to {str(codes)[6:]} C={columns} keep={keep}",
        _kernel,
        pointers | numbers,
        shape | {"LIMIT": LIMITS[codes]},
        chosen,
        divisible=("stride", "residual_stride"),
        oldest=80 if codes == torch.int8 else 10 * FP8_OLDEST[0] + FP8_OLDEST[1],
    )
