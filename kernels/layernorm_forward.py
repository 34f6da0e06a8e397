"""The forward kernels of `residual_layernorm`: whole rows in registers, or wide rows in tiles.

R rows and BLOCK columns a tile, M rows of C columns in all. A row of up to NARROW columns is read once and its variance
taken about its own mean. Wider ones are read twice (the second time from the cache as a rule), and the tiles' moments
merged as Chan et al. 1983 do, for E[z^2] - E[z]^2 would lose digits.
"""

from __future__ import annotations

import torch

from kernels.ahead import Build
from kernels.dropout_mask import kept, threshold
from kernels.row_tiles import block_of, fewer_rows, sizes, tried
from kernels.runtime import jit, tl, triton
from kernels.tuning import Sizes, Tunable

NARROW = 4096  # columns that one program holds at once
WIDE_BLOCK = 2048
FORWARD = Tunable("residual_layernorm forward", sizes, tried)


def launch(
    x: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor,
    seed: torch.Tensor | None,
    out: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor],
    eps: float,
    p: float,
) -> None:
    """Fill y [M, C], the sum [M, C] if there is one, mean and rstd fp32 [M] from rows x, residual [M, C]."""
    (count, columns), (y, summed, mean, rstd) = x.shape, out
    chosen = FORWARD.sizes(x, C=columns)
    launched = {"num_warps": chosen["num_warps"], "num_stages": chosen["num_stages"]}
    other = x if residual is None else residual
    arguments = (
        *(x, other, weight, bias, x if seed is None else seed, y, x if summed is None else summed, mean, rstd),
        *(count, x.stride(0), other.stride(0), eps, threshold(p), 1 / (1 - p), columns),
    )
    flags = residual is not None, p > 0, summed is not None
    if columns <= NARROW:
        rows = fewer_rows(chosen["ROWS"], count, x.device)
        _forward_kernel[(triton.cdiv(count, rows),)](*arguments, rows, block_of(columns), *flags, **launched)
    else:
        _wide_kernel[(count,)](*arguments, 1, WIDE_BLOCK, *flags, **launched)


@jit
def load_sum(
    x_ptr, residual_ptr, seed_ptr, row, first, inside, stride, residual_stride, dropped, grown,
    BLOCK: tl.constexpr, RESIDUAL: tl.constexpr, DROP: tl.constexpr,
):  # fmt: skip
    """residual + dropout(x) of the rows [R] and the columns from `first` on, fp32 [R, BLOCK]; 0 outside."""
    column = first + tl.arange(0, BLOCK)
    z = tl.load(x_ptr + row[:, None] * stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    if DROP:
        z = tl.where(kept(seed_ptr, row, first, dropped, BLOCK), z * grown, 0.0)
    if RESIDUAL:
        at = residual_ptr + row[:, None] * residual_stride + column[None, :]
        z += tl.load(at, mask=inside, other=0.0).to(tl.float32)
    return z


@jit
def normalised(z, weight_ptr, bias_ptr, column, inside, eps, C: tl.constexpr):
    """LayerNorm of whole rows z fp32 [R, BLOCK], 0 outside of them, and their statistics [R]."""
    mean = tl.sum(z, axis=1) / C
    off = tl.where(inside, z - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt_rn(tl.sum(off * off, axis=1) / C + eps)
    weight = tl.load(weight_ptr + column, mask=column < C, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + column, mask=column < C, other=0.0).to(tl.float32)
    return off * rstd[:, None] * weight[None, :] + bias[None, :], mean, rstd


@jit
def _forward_kernel(
    x_ptr, residual_ptr, weight_ptr, bias_ptr, seed_ptr, y_ptr, sum_ptr, mean_ptr, rstd_ptr,
    count, stride, residual_stride, eps, dropped, grown,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, RESIDUAL: tl.constexpr, DROP: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # int64: M * C may pass 2^31
    column = tl.arange(0, BLOCK)
    inside = (row < count)[:, None] & (column < C)[None, :]
    z = load_sum(
        x_ptr, residual_ptr, seed_ptr, row, 0, inside, stride, residual_stride, dropped, grown, BLOCK, RESIDUAL, DROP
    )
    at = row[:, None] * C + column[None, :]
    if SUM:  # rounded first: the backward pass reads it again, and its mean must be this one
        rounded = z.to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + at, rounded, mask=inside)
        z = rounded.to(tl.float32)
    y, mean, rstd = normalised(z, weight_ptr, bias_ptr, column, inside, eps, C)
    tl.store(y_ptr + at, y, mask=inside)
    tl.store(mean_ptr + row, mean, mask=row < count)
    tl.store(rstd_ptr + row, rstd, mask=row < count)


@jit
def _wide_kernel(
    x_ptr, residual_ptr, weight_ptr, bias_ptr, seed_ptr, y_ptr, sum_ptr, mean_ptr, rstd_ptr,
    count, stride, residual_stride, eps, dropped, grown,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, RESIDUAL: tl.constexpr, DROP: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    mean, squares = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)  # squares: of what is off the mean
    for first in range(0, C, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = (row < count)[:, None] & (column < C)[None, :]
        z = load_sum(
            x_ptr, residual_ptr, seed_ptr, row, first, inside, stride, residual_stride, dropped, grown,
            BLOCK, RESIDUAL, DROP,
        )  # fmt: skip
        if SUM:
            rounded = z.to(sum_ptr.dtype.element_ty)
            tl.store(sum_ptr + row[:, None] * C + column[None, :], rounded, mask=inside)
            z = rounded.to(tl.float32)
        width = tl.minimum(C - first, BLOCK)
        own = tl.sum(z, axis=1) / width
        off = tl.where(inside, z - own[:, None], 0.0)
        shift = own - mean
        mean += shift * width / (first + width)
        squares += tl.sum(off * off, axis=1) + shift * shift * first * (width / (first + width))
    rstd = 1.0 / tl.sqrt_rn(squares / C + eps)
    for first in range(0, C, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = (row < count)[:, None] & (column < C)[None, :]
        at = row[:, None] * C + column[None, :]
        z = load_sum(
            x_ptr, residual_ptr, seed_ptr, row, first, inside, stride, residual_stride, dropped, grown,
            BLOCK, RESIDUAL, DROP,
        )  # fmt: skip
        if SUM:
            z = z.to(sum_ptr.dtype.element_ty).to(tl.float32)
        weight = tl.load(weight_ptr + column, mask=column < C, other=0.0).to(tl.float32)
        bias = tl.load(bias_ptr + column, mask=column < C, other=0.0).to(tl.float32)
        tl.store(y_ptr + at, (z - mean[:, None]) * rstd[:, None] * weight[None, :] + bias[None, :], mask=inside)
    tl.store(mean_ptr + row, mean, mask=row < count)
    tl.store(rstd_ptr + row, rstd, mask=row < count)


def builds(dtype: str) -> list[Build]:
    """The widths of MiniLM, ViT and BERT, one of them with dropout and one with the sum, and a wide one."""
    kinds = [(columns, False, False) for columns in (192, 384, 768, 1024, 8192)]
    kinds += [(768, True, False), (768, False, True)]
    return [_build(dtype, *kind, chosen) for kind in kinds for chosen in FORWARD.committed(dtype, C=kind[0])]


def _build(dtype: str, columns: int, drop: bool, with_sum: bool, chosen: Sizes) -> Build:
    narrow = columns <= NARROW
    pointers = {f"{name}_ptr": f"*{dtype}" for name in ("x", "residual", "weight", "bias")}
    pointers |= {"seed_ptr": "*i64", "y_ptr": f"*{dtype}", "sum_ptr": f"*{dtype}"}
    pointers |= {"mean_ptr": "*fp32", "rstd_ptr": "*fp32"}
    numbers = {"count": "i32", "stride": "i32", "residual_stride": "i32", "eps": "fp32", "dropped": "i32"}
    flags = {"RESIDUAL": True, "DROP": drop, "SUM": with_sum}
    return Build.sized(
        f"residual_layernorm forward {dtype} C={columns}{' dropout' * drop}{' sum' * with_sum}",
        _forward_kernel if narrow else _wide_kernel,
        pointers | numbers | {"grown": "fp32"},
        {"C": columns, "BLOCK": block_of(columns) if narrow else WIDE_BLOCK, **flags},
        chosen,
        divisible=("stride", "residual_stride"),
    )
