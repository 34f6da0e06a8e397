"""The forward kernels of `residual_layernorm`: whole rows in registers, or wide rows in tiles.

R rows and BLOCK columns a tile, M rows of C columns in all. A row of up to NARROW columns is read once and its variance
taken about its own mean. Wider ones are read twice (the second time from the cache as a rule), and the tiles' moments
merged as Chan et al. 1983 do, for E[z^2] - E[z]^2 would lose digits.
"""

from __future__ import annotations

import torch

from kernels.ahead import Build
from kernels.dropout_mask import kept, threshold
from kernels.runtime import jit, multiprocessors, tl, triton

NARROW = 4096  # columns that one program holds at once
ELEMENTS = 4096  # of a tile: 32 of a thread, as four 128-bit loads of bf16 a tensor
WIDE_BLOCK = 2048


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
    block, rows = tile(count, columns, x.device)
    other = x if residual is None else residual
    arguments = (
        *(x, other, weight, bias, x if seed is None else seed, y, x if summed is None else summed, mean, rstd),
        *(count, x.stride(0), other.stride(0), eps, threshold(p), 1 / (1 - p), columns),
    )
    flags = residual is not None, p > 0, summed is not None
    if columns <= NARROW:
        _forward_kernel[(triton.cdiv(count, rows),)](*arguments, rows, block, *flags)
    else:
        _wide_kernel[(count,)](*arguments, 1, WIDE_BLOCK, *flags, num_warps=8)


def tile(count: int, columns: int, device: torch.device) -> tuple[int, int]:
    """Columns and rows of a program: several rows where they are narrow, as long as there is work for every SM."""
    block = max(triton.next_power_of_2(columns), 16)
    rows = max(ELEMENTS // block, 1)
    while rows > 1 and triton.cdiv(count, rows) < 2 * multiprocessors(device):
        rows //= 2
    return block, rows


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
    mean = tl.sum(z, axis=1) / C
    off = tl.where(inside, z - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt_rn(tl.sum(off * off, axis=1) / C + eps)
    weight = tl.load(weight_ptr + column, mask=column < C, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + column, mask=column < C, other=0.0).to(tl.float32)
    tl.store(y_ptr + at, off * rstd[:, None] * weight[None, :] + bias[None, :], mask=inside)
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
    return [
        *(_build(dtype, columns, ELEMENTS // triton.next_power_of_2(columns)) for columns in (192, 384, 768, 1024)),
        _build(dtype, 768, 4, drop=True),
        _build(dtype, 768, 4, with_sum=True),
        _build(dtype, 8192, 1),
    ]


def _build(dtype: str, columns: int, rows: int, drop: bool = False, with_sum: bool = False) -> Build:
    narrow = columns <= NARROW
    pointers = {f"{name}_ptr": f"*{dtype}" for name in ("x", "residual", "weight", "bias")}
    pointers |= {"seed_ptr": "*i64", "y_ptr": f"*{dtype}", "sum_ptr": f"*{dtype}"}
    pointers |= {"mean_ptr": "*fp32", "rstd_ptr": "*fp32"}
    numbers = {"count": "i32", "stride": "i32", "residual_stride": "i32", "eps": "fp32", "dropped": "i32"}
    block = triton.next_power_of_2(columns) if narrow else WIDE_BLOCK
    tiles = {"C": columns, "ROWS": rows, "BLOCK": block}
    return Build(
        f"residual_layernorm forward {dtype} C={columns} rows={rows}{' dropout' * drop}{' sum' * with_sum}",
        _forward_kernel if narrow else _wide_kernel,
        pointers | numbers | {"grown": "fp32"},
        tiles | {"RESIDUAL": True, "DROP": drop, "SUM": with_sum},
        num_warps=4 if narrow else 8,
        divisible=("stride", "residual_stride"),
    )
