"""A loss that makes its gradient in the forward pass, where its inputs are in registers anyway.

The backward pass multiplies that gradient G by the factor f that comes in, and is free where f = 1: it is read on the
device, without waiting for it, and G is neither read nor written. So fold the weights and the denominator of a loss
into its own weights where you can.

G is kept in the dtype of the input, and scaled in place unless the graph is kept (`retain_graph`). Of fp16 it is kept
in fp32: without the loss scale, which is part of f, small gradients would be lost (Micikevicius et al. 2018, arXiv
1710.03740, section 3.2).
"""

from __future__ import annotations

from typing import Any

import torch

from kernels.ahead import Build
from kernels.runtime import jit, runs_triton, tl, triton

BLOCK, MOST_PROGRAMS = 4096, 1056  # elements of a step; 8 programs for each of an H100's 132 multiprocessors


def wanted(x: torch.Tensor) -> bool:
    """Whether a loss of `x` will be asked for its gradient."""
    return x.requires_grad and torch.is_grad_enabled()


def kept(x: torch.Tensor, wants_gradient: bool) -> torch.Tensor:
    """New memory for the gradient: like `x`, contiguous; [0] where none is wanted."""
    dtype = torch.float32 if x.dtype == torch.float16 else x.dtype
    return torch.empty(x.shape if wants_gradient else (0,), dtype=dtype, device=x.device)


def save(ctx: Any, x: torch.Tensor, loss: torch.Tensor, parts: torch.Tensor, gradient: torch.Tensor) -> None:
    """Set the context of an operator that gives loss [], parts and the gradient of `x`, or [0].

    Only the loss can be differentiated, and without a gradient that neither.
    """
    known = gradient.shape == x.shape
    ctx.mark_non_differentiable(*(() if known else (loss,)), parts, gradient)
    ctx.set_materialize_grads(False)  # or zeros of the gradient's size would be made for nothing
    ctx.save_for_backward(gradient)
    ctx.dtype = x.dtype


def scaled(ctx: Any, factor: torch.Tensor | None) -> torch.Tensor | None:
    """What the backward pass gives back: the saved gradient times `factor` [], in the dtype of the input."""
    (gradient,) = ctx.saved_tensors
    if factor is None:
        return None
    if type(gradient) is torch.Tensor and gradient.dtype == ctx.dtype and runs_triton(gradient) and not _kept_graph():
        _launch(gradient, factor, gradient)
        return gradient
    return _scaled(gradient, factor, ctx.dtype)


def builds() -> list[Build]:
    """The configurations that the ahead-of-time lane compiles."""
    return [
        Build(
            f"early_gradient scaled {dtype}",
            _scale_kernel,
            {"gradient_ptr": f"*{dtype}", "factor_ptr": "*fp32", "out_ptr": f"*{dtype}", "count": "i64"},
            {"IN_PLACE": True, "BLOCK": BLOCK},
            num_warps=8,
            divisible=("count",),
        )
        for dtype in ("bf16", "fp32")
    ]


@torch.library.custom_op("limbeck::early_gradient_scaled", mutates_args=())
def _scaled(gradient: torch.Tensor, factor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if gradient.dtype == torch.float64 or not runs_triton(gradient):
        return (gradient.to(factor.dtype) * factor).to(dtype)
    out = torch.empty(gradient.shape, dtype=dtype, device=gradient.device)
    _launch(gradient, factor, out)
    return out


@_scaled.register_fake
def _(gradient: torch.Tensor, factor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(gradient.shape, dtype=dtype, device=gradient.device)


def _launch(gradient: torch.Tensor, factor: torch.Tensor, out: torch.Tensor) -> None:
    if count := gradient.numel():
        programs = min(triton.cdiv(count, BLOCK), MOST_PROGRAMS)
        _scale_kernel[(programs,)](gradient, factor, out, count, gradient is out, BLOCK, num_warps=8)


def _kept_graph() -> bool:
    """Whether the backward pass that is running may be asked for once more."""
    keeps: bool = torch._C._autograd._get_current_graph_task_keep_graph()
    return keeps


@jit
def _scale_kernel(gradient_ptr, factor_ptr, out_ptr, count, IN_PLACE: tl.constexpr, BLOCK: tl.constexpr):
    factor = tl.load(factor_ptr)
    if not IN_PLACE or factor != 1.0:
        for block in range(tl.program_id(0), (count - 1) // BLOCK + 1, tl.num_programs(0)):
            at = tl.arange(0, BLOCK).to(tl.int64) + block * BLOCK
            gradient = tl.load(gradient_ptr + at, mask=at < count, other=0.0).to(tl.float32)
            tl.store(out_ptr + at, gradient * factor, mask=at < count)
