"""The kernels that read rows, change them element by element, and quantize each with a scale of its own.

    codes, scale = quantized(f(x + bias)),  f nothing or GELU

x [M, C], bias [C], codes [M, C], scale fp32 [M]. A row of up to ONE_TILE columns stays in
registers between its maximum and its codes; a wider one is read again, from the cache as a rule.
"""

from __future__ import annotations

from typing import Literal

import torch

from kernels.ahead import Build
from kernels.gelu import gelu
from kernels.row_scales import FP8_OLDEST, LIMITS, codes_of, most_of, scale_of
from kernels.row_tiles import block_of, fewer_rows
from kernels.runtime import jit, tl, triton
from kernels.tuning import Sizes, Tunable

ONE_TILE = 8192  # columns
WIDE_BLOCK = 4096
Change = Literal["", "gelu", "gelu tanh"]


def launch(
    x: torch.Tensor, bias: torch.Tensor | None, change: Change, dtype: torch.dtype, tunable: Tunable
) -> tuple[torch.Tensor, torch.Tensor]:
    """codes [M, C] and scales [M] of the rows x [M, C], M and C at least 1."""
    (count, columns), other = x.shape, x if bias is None else bias
    codes = torch.empty(count, columns, dtype=dtype, device=x.device)
    scale = torch.empty(count, dtype=torch.float32, device=x.device)
    chosen, flags = tunable.sizes(x, C=columns), (bias is not None, bool(change), "tanh" in change, LIMITS[dtype])
    launched = {"num_warps": chosen["num_warps"], "num_stages": chosen["num_stages"]}
    arguments = x, other, codes, scale, count, x.stride(0), columns
    if columns <= ONE_TILE:
        rows = fewer_rows(chosen["ROWS"], count, x.device)
        _row_kernel[(triton.cdiv(count, rows),)](*arguments, rows, block_of(columns), *flags, **launched)
    else:
        _wide_kernel[(count,)](*arguments, 1, WIDE_BLOCK, *flags, **launched)
    return codes, scale


def builds(stem: str, change: Change, tunable: Tunable, widths: tuple[int, ...], bias: bool) -> list[Build]:
    """For bf16 and fp16 to int8 and bf16 to fp8, each with every committed configuration."""
    kinds = ("bf16", torch.int8), ("fp16", torch.int8), ("bf16", torch.float8_e4m3fn)
    return [
        _build(f"{stem} {read} to {str(codes)[6:]} C={columns}", read, codes, columns, change, bias, chosen)
        for columns in widths
        for read, codes in kinds
        for chosen in tunable.committed(read, C=columns)
    ]


def _build(name: str, read: str, codes: torch.dtype, columns: int, change: Change, bias: bool, chosen: Sizes) -> Build:
    written = "*i8" if codes == torch.int8 else "*fp8e4nv"
    wide = columns > ONE_TILE
    shape: dict[str, float] = {"C": columns, "BLOCK": WIDE_BLOCK if wide else block_of(columns), "BIAS": bias}
    shape |= {"GELU": bool(change), "TANH": "tanh" in change, "LIMIT": LIMITS[codes]}
    return Build.sized(
        name,
        _wide_kernel if wide else _row_kernel,
        {"x_ptr": f"*{read}", "bias_ptr": f"*{read}", "codes_ptr": written, "scale_ptr": "*fp32"}
        | {"count": "i32", "stride": "i32"},
        shape,
        chosen,
        divisible=("stride",),
        oldest=80 if codes == torch.int8 else 10 * FP8_OLDEST[0] + FP8_OLDEST[1],
    )


@jit
def _load(
    x_ptr, bias_ptr, row, column, inside, stride, C: tl.constexpr,
    BIAS: tl.constexpr, GELU: tl.constexpr, TANH: tl.constexpr,
):  # fmt: skip
    """f(x + bias) of a tile in fp32, 0 outside."""
    u = tl.load(x_ptr + row[:, None] * stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    if BIAS:
        u += tl.load(bias_ptr + column, mask=column < C, other=0.0).to(tl.float32)[None, :]
    return gelu(u, TANH) if GELU else u


@jit
def _row_kernel(
    x_ptr, bias_ptr, codes_ptr, scale_ptr, count, stride, C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    BIAS: tl.constexpr, GELU: tl.constexpr, TANH: tl.constexpr, LIMIT: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # int64: M * C may pass 2^31
    column = tl.arange(0, BLOCK)
    inside = (row < count)[:, None] & (column < C)[None, :]
    y = _load(x_ptr, bias_ptr, row, column, inside, stride, C, BIAS, GELU, TANH)
    scale = scale_of(most_of(y), LIMIT)
    tl.store(codes_ptr + row[:, None] * C + column[None, :], codes_of(y, scale, LIMIT), mask=inside)
    tl.store(scale_ptr + row, scale, mask=row < count)


@jit
def _wide_kernel(
    x_ptr, bias_ptr, codes_ptr, scale_ptr, count, stride, C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    BIAS: tl.constexpr, GELU: tl.constexpr, TANH: tl.constexpr, LIMIT: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    most, spoilt = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)
    for first in range(0, C, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = (row < count)[:, None] & (column < C)[None, :]
        found = most_of(_load(x_ptr, bias_ptr, row, column, inside, stride, C, BIAS, GELU, TANH))
        most = tl.maximum(most, found)
        spoilt += found * 0.0
    scale = scale_of(most + spoilt, LIMIT)
    for first in range(0, C, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = (row < count)[:, None] & (column < C)[None, :]
        y = _load(x_ptr, bias_ptr, row, column, inside, stride, C, BIAS, GELU, TANH)
        tl.store(codes_ptr + row[:, None] * C + column[None, :], codes_of(y, scale, LIMIT), mask=inside)
    tl.store(scale_ptr + row, scale, mask=row < count)
