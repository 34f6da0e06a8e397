"""Dropout + residual + LayerNorm in one pass: the end of each half of a transformer's block.

    z = residual + dropout(x),  y = (z - mean(z)) / sqrt(var(z) + eps) * weight + bias    (Ba et al. 2016, 1607.06450)

x, residual, y, z [..., C], weight and bias [C]. Arithmetic and statistics in fp32, rounded once. Post-norm (BERT) reads
two and writes one: z is made again in the backward pass, which costs a read there and saves a write here. Pre-norm
(ViT) needs z itself, so it is written, and the backward pass reads it alone. The kernels are in `layernorm_forward` and
`layernorm_backward`, the random bits in `dropout_mask`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import layernorm_backward, layernorm_forward
from kernels import residual_layernorm_reference as plain
from kernels.ahead import Build
from kernels.arguments import check_affine, check_same, rows_of
from kernels.dropout_mask import check_dropout, draw_seed
from kernels.runtime import runs_triton

TUNABLES = (layernorm_forward.FORWARD, layernorm_backward.BACKWARD)


def residual_layernorm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    p: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """LayerNorm(residual + dropout(x)), of x's shape and dtype; `residual` None counts as zeros.

    x and residual have one dtype; weight and bias have it too, or are fp32. `p` is the probability with which an
    element is dropped, the others grow by 1 / (1 - p); `seed`, int64 [1] on x's device, says which, on every device the
    same, and is drawn from torch's generator if None. Raises ValueError for what does not fit.
    """
    return _forward(x, residual, weight, bias, eps, p, _seed(x, p, seed))[0]


def residual_layernorm_with_sum(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    p: float = 0.0,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The same, and residual + dropout(x) besides, which a block with the norm in front (ViT) passes on."""
    y, summed, _, _ = _forward_with_sum(x, residual, weight, bias, eps, p, _seed(x, p, seed))
    return y, summed


def reference(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    p: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """The same in plain PyTorch, computed in fp32 (fp64 for fp64) and rounded once; autograd goes through it."""
    z = plain.sum_of(x, residual, p, _seed(x, p, seed))
    y = torch.nn.functional.layer_norm(z, x.shape[-1:], weight.to(z.dtype), bias.to(z.dtype), eps)
    return y.to(x.dtype)


def builds() -> list[Build]:
    """The configurations that the ahead-of-time lane compiles."""
    sides = layernorm_forward, layernorm_backward
    return [build for dtype in ("bf16", "fp16", "fp32") for side in sides for build in side.builds(dtype)]


@torch.library.custom_op("limbeck::residual_layernorm", mutates_args=())
def _forward(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, p: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    y, _, mean, rstd = _run(x, residual, weight, bias, eps, p, seed, with_sum=False)
    return y, mean, rstd


@torch.library.custom_op("limbeck::residual_layernorm_with_sum", mutates_args=())
def _forward_with_sum(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, p: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y, summed, mean, rstd = _run(x, residual, weight, bias, eps, p, seed, with_sum=True)
    assert summed is not None
    return y, summed, mean, rstd


@torch.library.custom_op("limbeck::residual_layernorm_backward", mutates_args=())
def _backward(
    grad: Tensor, grad_sum: Tensor | None, x: Tensor, residual: Tensor | None, weight: Tensor, mean: Tensor,
    rstd: Tensor, p_in: float, p_out: float, seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dz, dx where p_out is not 0 (else nothing, [0]), and the sums dw and db, [2, C] in the statistics' dtype."""
    if x.dtype == torch.float64 or not runs_triton(x):
        found = plain.backward(grad, grad_sum, x, residual, weight, mean, rstd, p_in, p_out, seed)
        return found[0].contiguous(), found[1].contiguous(), found[2]
    dz = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dx = torch.empty(x.shape if p_out else (0,), dtype=x.dtype, device=x.device)
    if not x.numel():
        return dz, dx, mean.new_zeros(2, x.shape[-1])
    affine = layernorm_backward.launch(
        rows_of(grad), None if grad_sum is None else rows_of(grad_sum),
        rows_of(x), None if residual is None else rows_of(residual),
        weight.contiguous(), (mean.contiguous(), rstd.contiguous()), (p_in, p_out, seed), (dz, dx if p_out else None),
    )  # fmt: skip
    return dz, dx, affine


@_forward.register_fake
def _(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, p: float, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    y, _, mean, rstd = _outputs(x, with_sum=False)
    return y, mean, rstd


@_forward_with_sum.register_fake
def _(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, p: float, seed: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    return _outputs(x, with_sum=True)


@_backward.register_fake
def _(
    grad: Tensor, grad_sum: Tensor | None, x: Tensor, residual: Tensor | None, weight: Tensor, mean: Tensor,
    rstd: Tensor, p_in: float, p_out: float, seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    dz = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return dz, x.new_empty(x.shape if p_out else (0,)), mean.new_empty(2, x.shape[-1])


def _setup(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    x, residual, weight, _, _, p, seed = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.save_for_backward(x, residual, weight, mean, rstd, seed)
    ctx.p_in = ctx.p_out = p


def _setup_with_sum(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    _, _, weight, _, _, p, seed = inputs
    _, summed, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.save_for_backward(summed, None, weight, mean, rstd, seed)
    ctx.p_in, ctx.p_out = 0.0, p


def _differentiate(ctx: Any, grad: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
    x, residual, weight, mean, rstd, seed = ctx.saved_tensors
    grad_sum = others[0] if len(others) == 3 else None  # beside those of mean and rstd, which have none
    dz, dx, affine = _backward(grad, grad_sum, x, residual, weight, mean, rstd, ctx.p_in, ctx.p_out, seed)
    dw, db = affine.to(weight.dtype).unbind()
    has_residual = ctx.needs_input_grad[1]
    return dx if ctx.p_out else dz, dz if has_residual else None, dw, db, None, None, None


_forward.register_autograd(_differentiate, setup_context=_setup)
_forward_with_sum.register_autograd(_differentiate, setup_context=_setup_with_sum)


def check(op: str, x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> None:
    """Raise ValueError for shapes, dtypes and devices that do not fit, and for an eps that is not above 0."""
    shapes = ", ".join(f"{name} is {tuple(t.shape)}" for name, t in (("x", x), ("weight", weight), ("bias", bias)))
    if x.ndim < 1 or not x.shape[-1] or weight.shape != x.shape[-1:] or bias.shape != x.shape[-1:]:
        raise ValueError(f"{op}: {shapes}: expected [..., C], [C] and [C]")
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"{op}: x is {tuple(x.shape)} and residual {tuple(residual.shape)}: expected one shape")
    if not 0 < eps < float("inf"):
        raise ValueError(f"{op}: eps is {eps}: expected a number above 0")
    check_same(op, x=x, **({} if residual is None else {"residual": residual}))
    check_affine(op, x, weight=weight, bias=bias)


def _seed(x: Tensor, p: float, seed: Tensor | None) -> Tensor | None:
    return draw_seed(x.device) if p > 0 and seed is None else seed


def _run(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, p: float, seed: Tensor | None,
    with_sum: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:  # fmt: skip
    check("residual_layernorm", x, residual, weight, bias, eps)
    check_dropout("residual_layernorm", p, seed, x.device)
    if x.dtype == torch.float64 or not runs_triton(x):
        y, summed, mean, rstd = plain.forward(x, residual, weight, bias, eps, p, seed, with_sum)
        kept = None if summed is None else summed.contiguous()
        return y.contiguous(), kept, mean.contiguous(), rstd.contiguous()  # in the layout that the kernel gives
    out = _outputs(x, with_sum)
    if x.numel():
        rows = rows_of(x), None if residual is None else rows_of(residual)
        layernorm_forward.launch(*rows, weight.contiguous(), bias.contiguous(), seed, out, eps, p)
    return out


def _outputs(x: Tensor, with_sum: bool) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """y, the sum, mean and rstd, to be filled."""
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    mean = torch.empty(x.shape[:-1], dtype=plain.wide(x.dtype), device=x.device)
    return y, torch.empty_like(y) if with_sum else None, mean, torch.empty_like(mean)
