"""Bias + GELU in one pass, and its backward pass with the bias's gradient in the same sweep.

    y = gelu(x + b)     (`kernels.gelu`: exact, or in the tanh approximation)
    dx = dy gelu'(x + b),  db = sum over the rows of dx

x, y, dx, dy [M, C] (any leading axes), b, db [C]. All sums in fp32. Memory-bound: one read and one write forward; two
reads and one write backward, and one row of partial sums of db a program.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from kernels.ahead import Build
from kernels.arguments import check_affine, check_same, rows_of
from kernels.gelu import check_approximation, gelu, gelu_slope
from kernels.runtime import jit, runs_triton, tl, triton
from kernels.tuning import Sizes, Tunable

TILE_ELEMENTS, BACKWARD_ROWS = 2048, 32  # of a tile in flight; rows of a program of the backward pass


def bias_gelu(x: torch.Tensor, bias: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    """gelu(x + bias): x [..., C] and bias [C], of x's dtype or fp32, to [..., C] of x's dtype.

    `approximate` as in torch: "none" is exact (erf), "tanh" what GPT-2 and `gelu_new` take. Raises ValueError for
    shapes, dtypes or devices that do not fit.
    """
    return _forward(x, bias, approximate)


def reference(x: torch.Tensor, bias: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    """The same in plain PyTorch, computed in fp32 (fp64 for fp64) and rounded once, as the kernel does."""
    wide = _wide(x.dtype)
    return F.gelu(x.to(wide) + bias.to(wide), approximate=approximate).to(x.dtype)


def builds() -> list[Build]:
    """The feed-forward widths of MiniLM, BERT and ViT-B, and one with tanh, for the ahead-of-time lane."""
    exact = [build for columns in (1536, 3072) for dtype in ("bf16", "fp16") for build in _builds(dtype, columns)]
    return exact + _builds("bf16", 3072, tanh=True)


@torch.library.custom_op("limbeck::bias_gelu", mutates_args=())
def _forward(x: torch.Tensor, bias: torch.Tensor, approximate: str) -> torch.Tensor:
    _check(x, bias, approximate)
    if x.dtype == torch.float64 or not runs_triton(x):
        return reference(x, bias, approximate).contiguous()  # in the layout that the kernel gives
    rows = rows_of(x)  # [M, C]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if rows.numel():
        count, columns = rows.shape
        sizes = FORWARD.sizes(x, C=columns)
        grid = (triton.cdiv(count, sizes["ROWS"]), triton.cdiv(columns, sizes["BLOCK"]))
        tanh = approximate == "tanh"
        _forward_kernel[grid](rows, bias.contiguous(), out, count, rows.stride(0), C=columns, TANH=tanh, **sizes)
    return out


@_forward.register_fake
def _(x: torch.Tensor, bias: torch.Tensor, approximate: str) -> torch.Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@torch.library.custom_op("limbeck::bias_gelu_backward", mutates_args=())
def _backward(
    grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor, approximate: str
) -> tuple[torch.Tensor, torch.Tensor]:
    if x.dtype == torch.float64 or not runs_triton(x):
        dx, db = _reference_backward(grad, x, bias, approximate)
        return dx.contiguous(), db
    rows, grads = rows_of(x), rows_of(grad)
    count, columns = rows.shape
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    sizes = BACKWARD.sizes(x, C=columns)
    programs = triton.cdiv(count, sizes["ROWS"])
    partial = torch.zeros(programs, columns, dtype=torch.float32, device=x.device)
    if rows.numel():
        grid = (programs, triton.cdiv(columns, sizes["BLOCK"]))
        strides = rows.stride(0), grads.stride(0)
        sizes = {**sizes, "TANH": approximate == "tanh"}
        _backward_kernel[grid](grads, rows, bias.contiguous(), dx, partial, count, *strides, C=columns, **sizes)
    return dx, partial.sum(dim=0).to(bias.dtype)


@_backward.register_fake
def _(grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor, approximate: str) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(bias)


def _setup_context(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    *tensors, ctx.approximate = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
    dx, db = _backward(grad, *ctx.saved_tensors, ctx.approximate)
    return dx, db, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)


@jit
def _forward_kernel(
    x_ptr, bias_ptr, out_ptr, count, stride, C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    TANH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # int64: M * C may pass 2^31
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (row < count)[:, None] & (column < C)[None, :]
    bias = tl.load(bias_ptr + column, mask=column < C, other=0.0).to(tl.float32)
    u = tl.load(x_ptr + row[:, None] * stride + column[None, :], mask=inside, other=0.0).to(tl.float32) + bias[None, :]
    tl.store(out_ptr + row[:, None] * C + column[None, :], gelu(u, TANH), mask=inside)


@jit
def _backward_kernel(
    grad_ptr, x_ptr, bias_ptr, dx_ptr, partial_ptr, count, stride, grad_stride,
    C: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, TANH: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_row = column < C
    bias = tl.load(bias_ptr + column, mask=in_row, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for step in range(0, ROWS, TILE):
        row = program * ROWS + step + tl.arange(0, TILE)
        inside = (row < count)[:, None] & in_row[None, :]
        u = tl.load(x_ptr + row[:, None] * stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        u += bias[None, :]
        dy = tl.load(grad_ptr + row[:, None] * grad_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        du = dy * gelu_slope(u, TANH)
        tl.store(dx_ptr + row[:, None] * C + column[None, :], du, mask=inside)
        total += tl.sum(tl.where(inside, du, 0.0), axis=0)
    tl.store(partial_ptr + program * C + column, total, mask=in_row)


def _check(x: torch.Tensor, bias: torch.Tensor, approximate: str) -> None:
    check_approximation("bias_gelu", approximate)
    if x.ndim < 1 or bias.ndim != 1 or bias.shape[0] != x.shape[-1]:
        raise ValueError(f"bias_gelu: x is {tuple(x.shape)} and bias {tuple(bias.shape)}: expected [..., C] and [C]")
    check_same("bias_gelu", x=x)
    check_affine("bias_gelu", x, bias=bias)


def _reference_backward(
    grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor, approximate: str
) -> tuple[torch.Tensor, torch.Tensor]:
    wide = _wide(x.dtype)
    du = torch.ops.aten.gelu_backward(grad.to(wide), x.to(wide) + bias.to(wide), approximate=approximate)
    return du.to(x.dtype), du.reshape(-1, x.shape[-1]).sum(dim=0).to(bias.dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _forward_sizes(C: int) -> Sizes:
    block = min(512, max(32, 1 << (C - 1).bit_length()))
    return {"ROWS": TILE_ELEMENTS // block, "BLOCK": block, "num_warps": 4, "num_stages": 2}


def _backward_sizes(C: int) -> Sizes:
    forward = _forward_sizes(C)
    return {"ROWS": BACKWARD_ROWS, "TILE": min(forward["ROWS"], BACKWARD_ROWS), **_without(forward, "ROWS")}


def _forward_tried(C: int) -> list[Sizes]:
    blocks = [block for block in (256, 512, 1024, 2048) if block <= max(256, 2 * C)]
    return [
        {"ROWS": elements // block, "BLOCK": block, "num_warps": warps, "num_stages": 2}
        for block in blocks
        for elements in (1024, 2048, 4096)
        if elements >= block
        for warps in (4, 8)
    ]


def _backward_tried(C: int) -> list[Sizes]:
    return [
        {"ROWS": rows, "TILE": tile["ROWS"], **_without(tile, "ROWS")}
        for tile in _forward_tried(C)
        for rows in (32, 64, 128)
        if tile["ROWS"] <= rows and tile["ROWS"] * tile["BLOCK"] <= 2048
    ]


def _without(sizes: Sizes, name: str) -> Sizes:
    return {key: value for key, value in sizes.items() if key != name}


FORWARD = Tunable("bias_gelu forward", _forward_sizes, _forward_tried)
BACKWARD = Tunable("bias_gelu backward", _backward_sizes, _backward_tried)
TUNABLES = (FORWARD, BACKWARD)


def _builds(dtype: str, columns: int, tanh: bool = False) -> list[Build]:
    pointer, sizes = f"*{dtype}", {"count": "i32", "stride": "i32"}
    grads = {**dict.fromkeys(("grad_ptr", "x_ptr", "bias_ptr", "dx_ptr"), pointer), "partial_ptr": "*fp32"}
    forward = {"x_ptr": pointer, "bias_ptr": pointer, "out_ptr": pointer, **sizes}
    backward = grads | sizes | {"grad_stride": "i32"}
    both = (
        (FORWARD, _forward_kernel, forward, ("stride",)),
        (BACKWARD, _backward_kernel, backward, ("stride", "grad_stride")),
    )
    name, shape = f"{dtype} C={columns}{' tanh' * tanh}", {"C": columns, "TANH": tanh}
    return [
        Build.sized(f"{tunable.op} {name}", kernel, signature, shape, chosen, divisible=divisible)
        for tunable, kernel, signature, divisible in both
        for chosen in tunable.committed(dtype, C=columns)
    ]
