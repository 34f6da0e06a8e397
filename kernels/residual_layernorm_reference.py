"""`residual_layernorm` and its gradients in plain PyTorch: computed in fp32 (fp64 for fp64) and rounded once.

Shapes as there: x, residual, y and gradients [..., C], weight and bias [C], mean and rstd [...].
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.dropout_mask import keep_mask


def wide(dtype: torch.dtype) -> torch.dtype:
    """What is computed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def sum_of(x: Tensor, residual: Tensor | None, p: float, seed: Tensor | None) -> Tensor:
    """residual + dropout(x), not rounded."""
    z = x.to(wide(x.dtype))
    if p:
        assert seed is not None
        z = _dropped(z, p, seed)
    return z if residual is None else z + residual.to(z.dtype)


def _dropped(z: Tensor, p: float, seed: Tensor) -> Tensor:
    rows = z.numel() // z.shape[-1]
    return torch.where(keep_mask(seed, rows, z.shape[-1], p).view(z.shape), z / (1 - p), 0.0)


def forward(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, p: float, seed: Tensor | None,
    with_sum: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:  # fmt: skip
    """y, the sum if it is asked for, mean and rstd."""
    z = sum_of(x, residual, p, seed)
    summed = z.to(x.dtype, copy=True) if with_sum else None
    if summed is not None:
        z = summed.to(z.dtype)
    variance, mean = torch.var_mean(z, dim=-1, correction=0)
    rstd = torch.rsqrt(variance + eps)
    y = (z - mean.unsqueeze(-1)) * rstd.unsqueeze(-1) * weight.to(z.dtype) + bias.to(z.dtype)
    return y.to(x.dtype), summed, mean, rstd


def backward(
    grad: Tensor, grad_sum: Tensor | None, x: Tensor, residual: Tensor | None, weight: Tensor, mean: Tensor,
    rstd: Tensor, p_in: float, p_out: float, seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dz, dx where p_out is not 0 (else nothing, [0]), and the sums dw and db, [2, C]."""
    z = sum_of(x, residual, p_in, seed)
    dy = grad.to(z.dtype)
    scale = rstd.unsqueeze(-1)
    xhat = (z - mean.unsqueeze(-1)) * scale
    g = dy * weight.to(z.dtype)
    dz = scale * (g - g.mean(-1, keepdim=True) - xhat * (g * xhat).mean(-1, keepdim=True))
    if grad_sum is not None:
        dz = dz + grad_sum.to(z.dtype)
    sums = torch.stack([term.reshape(-1, term.shape[-1]).sum(dim=0) for term in (dy * xhat, dy)])
    if not p_out:
        return dz.to(x.dtype), x.new_empty(0), sums
    assert seed is not None
    return dz.to(x.dtype), _dropped(dz, p_out, seed).to(x.dtype), sums
