"""Bias + GELU in one pass, and its backward pass with the bias's gradient in the same sweep.

    y = gelu(x + b),  gelu(u) = u Phi(u) = u/2 (1 + erf(u / sqrt 2))     (Hendrycks & Gimpel 2016, arXiv 1606.08415)
    dx = dy (Phi(u) + u phi(u)),  db = sum over the rows of dx

x, y, dx, dy [M, C] (any leading axes), b, db [C]. All sums in fp32. Memory-bound: one read and one write forward; two
reads and one write backward, and one row of partial sums of db a program.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kernels.ahead import Build
from kernels.arguments import check_same, rows_of
from kernels.runtime import jit, runs_triton, tl, triton

FORWARD_ROWS, BACKWARD_ROWS = 4, 32  # rows of a program
TILE, BLOCK = 4, 512  # rows and columns of a tile in flight


def bias_gelu(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """gelu(x + bias), exact (erf): x [..., C] and bias [C] of one dtype to [..., C] of that dtype.

    Raises ValueError for shapes, dtypes or devices that do not fit.
    """
    return _forward(x, bias)


def reference(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The same in plain PyTorch, computed in fp32 (fp64 for fp64) and rounded once, as the kernel does."""
    wide = _wide(x.dtype)
    return F.gelu(x.to(wide) + bias.to(wide)).to(x.dtype)


def builds() -> list[Build]:
    """The configurations that the ahead-of-time lane compiles: the feed-forward widths of MiniLM, BERT and ViT-B."""
    return [build for columns in (1536, 3072) for dtype in ("bf16", "fp16") for build in _builds(dtype, columns)]


@torch.library.custom_op("limbeck::bias_gelu", mutates_args=())
def _forward(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    _check(x, bias)
    if x.dtype == torch.float64 or not runs_triton(x):
        return reference(x, bias)
    rows = rows_of(x)  # [M, C]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if rows.numel():
        grid = (triton.cdiv(rows.shape[0], FORWARD_ROWS), triton.cdiv(rows.shape[1], BLOCK))
        _forward_kernel[grid](
            rows, bias.contiguous(), out, rows.shape[0], rows.stride(0), rows.shape[1], FORWARD_ROWS, BLOCK
        )
    return out


@_forward.register_fake
def _(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@torch.library.custom_op("limbeck::bias_gelu_backward", mutates_args=())
def _backward(grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if x.dtype == torch.float64 or not runs_triton(x):
        return _reference_backward(grad, x, bias)
    rows, grads = rows_of(x), rows_of(grad)
    count, columns = rows.shape
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    programs = triton.cdiv(count, BACKWARD_ROWS)
    partial = torch.zeros(programs, columns, dtype=torch.float32, device=x.device)
    if rows.numel():
        grid = (programs, triton.cdiv(columns, BLOCK))
        strides = rows.stride(0), grads.stride(0)
        _backward_kernel[grid](
            grads, rows, bias.contiguous(), dx, partial, count, *strides, columns, BACKWARD_ROWS, TILE, BLOCK
        )
    return dx, partial.sum(dim=0).to(bias.dtype)


@_backward.register_fake
def _(grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(bias)


def _setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x, bias = ctx.saved_tensors  # type: ignore[attr-defined]
    return _backward(grad, x, bias)


_forward.register_autograd(_differentiate, setup_context=_setup_context)


@jit
def _forward_kernel(
    x_ptr, bias_ptr, out_ptr, count, stride, C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # int64: M * C may pass 2^31
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (row < count)[:, None] & (column < C)[None, :]
    bias = tl.load(bias_ptr + column, mask=column < C, other=0.0).to(tl.float32)
    u = tl.load(x_ptr + row[:, None] * stride + column[None, :], mask=inside, other=0.0).to(tl.float32) + bias[None, :]
    y = u * 0.5 * (1.0 + tl.erf(u * 0.7071067811865476))
    tl.store(out_ptr + row[:, None] * C + column[None, :], y, mask=inside)


@jit
def _backward_kernel(
    grad_ptr, x_ptr, bias_ptr, dx_ptr, partial_ptr, count, stride, grad_stride,
    C: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
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
        phi = 0.3989422804014327 * tl.exp(-0.5 * u * u)  # the density of N(0, 1)
        du = dy * (0.5 * (1.0 + tl.erf(u * 0.7071067811865476)) + u * phi)
        tl.store(dx_ptr + row[:, None] * C + column[None, :], du, mask=inside)
        total += tl.sum(tl.where(inside, du, 0.0), axis=0)
    tl.store(partial_ptr + program * C + column, total, mask=in_row)


def _check(x: torch.Tensor, bias: torch.Tensor) -> None:
    if x.ndim < 1 or bias.ndim != 1 or bias.shape[0] != x.shape[-1]:
        raise ValueError(f"bias_gelu: x is {tuple(x.shape)} and bias {tuple(bias.shape)}: expected [..., C] and [C]")
    check_same("bias_gelu", x=x, bias=bias)


def _reference_backward(grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    wide = _wide(x.dtype)
    u = x.to(wide) + bias.to(wide)
    phi = torch.exp(-0.5 * u * u) * 0.3989422804014327
    du = grad.to(wide) * (0.5 * (1 + torch.erf(u * 0.7071067811865476)) + u * phi)
    return du.to(x.dtype), du.reshape(-1, x.shape[-1]).sum(dim=0).to(bias.dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _builds(dtype: str, columns: int) -> list[Build]:
    pointer, sizes = f"*{dtype}", {"count": "i32", "stride": "i32"}
    forward = {"C": columns, "ROWS": FORWARD_ROWS, "BLOCK": BLOCK}
    backward = {"C": columns, "ROWS": BACKWARD_ROWS, "TILE": TILE, "BLOCK": BLOCK}
    return [
        Build(
            f"bias_gelu forward {dtype} C={columns}",
            _forward_kernel,
            {"x_ptr": pointer, "bias_ptr": pointer, "out_ptr": pointer, **sizes},
            forward,
            divisible=("stride",),
        ),
        Build(
            f"bias_gelu backward {dtype} C={columns}",
            _backward_kernel,
            {**dict.fromkeys(("grad_ptr", "x_ptr", "bias_ptr", "dx_ptr"), pointer), "partial_ptr": "*fp32"}
            | sizes
            | {"grad_stride": "i32"},
            backward,
            divisible=("stride", "grad_stride"),
        ),
    ]
