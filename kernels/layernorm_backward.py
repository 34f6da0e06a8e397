"""The backward kernels of `residual_layernorm`, with the gradients of weight and bias in the same sweep.

    xhat = (z - mean) rstd,  g = dy w,  dz = rstd (g - mean(g) - xhat mean(g xhat)) + dsum      (Ba et al. 2016)
    dresidual = dz,  dx = dz where dropout kept, / (1 - p),  dw = sum over the rows of dy xhat,  db = of dy

Statistics are those of the forward pass, in fp32. A program goes through many rows, keeps its own sums of dw and db,
and writes them once; PROGRAMS programs an SM, so that what is left to add is small. No atomics: the same every time.
"""

from __future__ import annotations

import torch

from kernels.ahead import Build
from kernels.dropout_mask import kept, threshold
from kernels.layernorm_forward import NARROW, WIDE_BLOCK, load_sum
from kernels.row_tiles import block_of
from kernels.runtime import jit, multiprocessors, tl, triton
from kernels.tuning import Sizes, Tunable

PROGRAMS = 2  # on an SM: one computes while the other's loads are under way


def _sizes(C: int) -> Sizes:
    """4,096 elements a tile, 16 of a thread: beside them it keeps as many sums of dw and of db."""
    return {"ROWS": 1 if C > NARROW else 4096 // block_of(C), "num_warps": 8, "num_stages": 2}


def _tried(C: int) -> list[Sizes]:
    block = WIDE_BLOCK if C > NARROW else block_of(C)
    return [
        {"ROWS": elements // block, "num_warps": warps, "num_stages": stages}
        for elements in ((block,) if C > NARROW else sorted({max(each, block) for each in (2048, 4096, 8192)}))
        for warps in (4, 8, 16)
        for stages in (2, 3)
        if 8 <= elements // (32 * warps) <= 32
    ]


BACKWARD = Tunable("residual_layernorm backward", _sizes, _tried)


def launch(
    grad: torch.Tensor,
    grad_sum: torch.Tensor | None,
    x: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    statistics: tuple[torch.Tensor, torch.Tensor],
    dropout: tuple[float, float, torch.Tensor | None],
    out: tuple[torch.Tensor, torch.Tensor | None],
) -> torch.Tensor:
    """Fill dz, and dx if there is one, [M, C] from rows [M, C]; return the sums dw and db, fp32 [2, C].

    `dropout` has the probability with which x is dropped on the way in, that with which dz is on the way out, the seed.
    """
    (count, columns), (dz, dx), (p_in, p_out, seed) = x.shape, out, dropout
    narrow = columns <= NARROW
    chosen = BACKWARD.sizes(x, C=columns)
    block, rows = block_of(columns) if narrow else WIDE_BLOCK, chosen["ROWS"]
    tiles = triton.cdiv(count, rows)
    programs = min(tiles, PROGRAMS * multiprocessors(x.device))
    partial = torch.zeros(programs, 2, columns, dtype=torch.float32, device=x.device)
    other, upper = (x if tensor is None else tensor for tensor in (residual, grad_sum))
    kernel = _backward_kernel if narrow else _wide_kernel
    kernel[(programs,)](
        *(grad, upper, x, other, weight, x if seed is None else seed, *statistics, dz, x if dx is None else dx),
        *(partial, count, triton.cdiv(tiles, programs), grad.stride(0), upper.stride(0), x.stride(0), other.stride(0)),
        *(threshold(max(p_in, p_out)), 1 / (1 - max(p_in, p_out)), columns, rows, block),
        *(residual is not None, grad_sum is not None, p_in > 0, p_out > 0),
        num_warps=chosen["num_warps"],
        num_stages=chosen["num_stages"],
    )
    return partial.sum(dim=0)


@jit
def _backward_kernel(
    grad_ptr, grad_sum_ptr, x_ptr, residual_ptr, weight_ptr, seed_ptr, mean_ptr, rstd_ptr, dz_ptr, dx_ptr, partial_ptr,
    count, steps, grad_stride, grad_sum_stride, stride, residual_stride, dropped, grown,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    RESIDUAL: tl.constexpr, SUM: tl.constexpr, DROP_IN: tl.constexpr, DROP_OUT: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    weight = tl.load(weight_ptr + column, mask=column < C, other=0.0).to(tl.float32)
    dw, db = tl.zeros([ROWS, BLOCK], tl.float32), tl.zeros([ROWS, BLOCK], tl.float32)  # rows are added once, at the end
    for step in tl.range(0, steps, num_stages=2):  # the next tile is on its way (cp.async) while this one is computed
        row = (step * tl.num_programs(0).to(tl.int64) + program) * ROWS + tl.arange(0, ROWS)
        there = row < count
        inside = there[:, None] & (column < C)[None, :]
        z = load_sum(
            x_ptr, residual_ptr, seed_ptr, row, 0, inside, stride, residual_stride, dropped, grown,
            BLOCK, RESIDUAL, DROP_IN,
        )  # fmt: skip
        dy = tl.load(grad_ptr + row[:, None] * grad_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        mean = tl.load(mean_ptr + row, mask=there, other=0.0)
        rstd = tl.load(rstd_ptr + row, mask=there, other=0.0)
        xhat = tl.where(inside, (z - mean[:, None]) * rstd[:, None], 0.0)
        g = dy * weight[None, :]
        along, level = tl.sum(g * xhat, axis=1) / C, tl.sum(g, axis=1) / C
        dz = (g - level[:, None] - xhat * along[:, None]) * rstd[:, None]
        if SUM:
            above = grad_sum_ptr + row[:, None] * grad_sum_stride + column[None, :]
            dz += tl.load(above, mask=inside, other=0.0).to(tl.float32)
        at = row[:, None] * C + column[None, :]
        tl.store(dz_ptr + at, dz, mask=inside)
        if DROP_OUT:
            dx = tl.where(kept(seed_ptr, row, 0, dropped, BLOCK), dz * grown, 0.0)
            tl.store(dx_ptr + at, dx, mask=inside)
        dw += dy * xhat
        db += dy
    tl.store(partial_ptr + program * 2 * C + column, tl.sum(dw, axis=0), mask=column < C)
    tl.store(partial_ptr + (program * 2 + 1) * C + column, tl.sum(db, axis=0), mask=column < C)


@jit
def _wide_kernel(
    grad_ptr, grad_sum_ptr, x_ptr, residual_ptr, weight_ptr, seed_ptr, mean_ptr, rstd_ptr, dz_ptr, dx_ptr, partial_ptr,
    count, steps, grad_stride, grad_sum_stride, stride, residual_stride, dropped, grown,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    RESIDUAL: tl.constexpr, SUM: tl.constexpr, DROP_IN: tl.constexpr, DROP_OUT: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    for step in range(steps):
        row = (step * tl.num_programs(0).to(tl.int64) + program) * ROWS + tl.arange(0, ROWS)
        there = row < count
        mean = tl.load(mean_ptr + row, mask=there, other=0.0)
        rstd = tl.load(rstd_ptr + row, mask=there, other=0.0)
        along, level = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)
        for first in range(0, C, BLOCK):
            column = first + tl.arange(0, BLOCK)
            in_row = column < C
            inside = there[:, None] & in_row[None, :]
            z = load_sum(
                x_ptr, residual_ptr, seed_ptr, row, first, inside, stride, residual_stride, dropped, grown,
                BLOCK, RESIDUAL, DROP_IN,
            )  # fmt: skip
            xhat = tl.where(inside, (z - mean[:, None]) * rstd[:, None], 0.0)
            dy = tl.load(grad_ptr + row[:, None] * grad_stride + column[None, :], mask=inside, other=0.0)
            g = dy.to(tl.float32) * tl.load(weight_ptr + column, mask=in_row, other=0.0).to(tl.float32)[None, :]
            along += tl.sum(g * xhat, axis=1) / C
            level += tl.sum(g, axis=1) / C
        for first in range(0, C, BLOCK):
            column = first + tl.arange(0, BLOCK)
            in_row = column < C
            inside = there[:, None] & in_row[None, :]
            z = load_sum(
                x_ptr, residual_ptr, seed_ptr, row, first, inside, stride, residual_stride, dropped, grown,
                BLOCK, RESIDUAL, DROP_IN,
            )  # fmt: skip
            xhat = tl.where(inside, (z - mean[:, None]) * rstd[:, None], 0.0)
            dy = tl.load(grad_ptr + row[:, None] * grad_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
            g = dy * tl.load(weight_ptr + column, mask=in_row, other=0.0).to(tl.float32)[None, :]
            dz = (g - level[:, None] - xhat * along[:, None]) * rstd[:, None]
            if SUM:
                above = grad_sum_ptr + row[:, None] * grad_sum_stride + column[None, :]
                dz += tl.load(above, mask=inside, other=0.0).to(tl.float32)
            at = row[:, None] * C + column[None, :]
            tl.store(dz_ptr + at, dz, mask=inside)
            if DROP_OUT:
                dx = tl.where(kept(seed_ptr, row, first, dropped, BLOCK), dz * grown, 0.0)
                tl.store(dx_ptr + at, dx, mask=inside)
            # this program's own sums so far, which only it reads and writes: they stay in the cache
            dw_at, db_at = partial_ptr + program * 2 * C + column, partial_ptr + (program * 2 + 1) * C + column
            tl.store(dw_at, tl.load(dw_at, mask=in_row, other=0.0) + tl.sum(dy * xhat, axis=0), mask=in_row)
            tl.store(db_at, tl.load(db_at, mask=in_row, other=0.0) + tl.sum(dy, axis=0), mask=in_row)
            tl.debug_barrier()  # what one thread stored, another may read in the next step


def builds(dtype: str) -> list[Build]:
    """The widths of the forward pass, one of them with dropout and one with the sum's gradient, and a wide one."""
    kinds = [(columns, False, False) for columns in (192, 384, 768, 1024, 8192)]
    kinds += [(768, True, False), (768, False, True)]
    return [_build(dtype, *kind, chosen) for kind in kinds for chosen in BACKWARD.committed(dtype, C=kind[0])]


def _build(dtype: str, columns: int, drop: bool, with_sum: bool, chosen: Sizes) -> Build:
    narrow = columns <= NARROW
    pointers = {f"{name}_ptr": f"*{dtype}" for name in ("grad", "grad_sum", "x", "residual", "weight")}
    pointers |= {"seed_ptr": "*i64", "mean_ptr": "*fp32", "rstd_ptr": "*fp32"}
    pointers |= {"dz_ptr": f"*{dtype}", "dx_ptr": f"*{dtype}", "partial_ptr": "*fp32"}
    strides = ("grad_stride", "grad_sum_stride", "stride", "residual_stride")
    numbers = {"count": "i32", "steps": "i32", **dict.fromkeys(strides, "i32"), "dropped": "i32", "grown": "fp32"}
    flags = {"RESIDUAL": not with_sum, "SUM": with_sum, "DROP_IN": drop, "DROP_OUT": drop}
    return Build.sized(
        f"residual_layernorm backward {dtype} C={columns}{' dropout' * drop}{' sum' * with_sum}",
        _backward_kernel if narrow else _wide_kernel,
        pointers | numbers,
        {"C": columns, "BLOCK": block_of(columns) if narrow else WIDE_BLOCK, **flags},
        chosen,
        divisible=strides,
    )
