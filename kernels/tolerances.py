"""How far a result may be from the fp64 one: relative, and absolute for each unit of the length that is summed over."""

from __future__ import annotations

import torch

RTOL = {torch.float64: 1e-9, torch.float32: 1.3e-6, torch.float16: 1e-3, torch.bfloat16: 1.6e-2}
ATOL = {torch.float64: 1e-9, torch.float32: 1e-6, torch.float16: 1e-4, torch.bfloat16: 1e-3}


def excess(found: torch.Tensor, exact: torch.Tensor, summed: int = 1) -> float:
    """The largest error as a multiple of what is tolerated: up to 1 is right. A NaN in only one is infinite."""
    if found.shape != exact.shape or not torch.equal(found.isnan(), exact.isnan()):
        return float("inf")
    if not found.numel():
        return 0.0
    allowed = ATOL[found.dtype] * max(summed, 1) + RTOL[found.dtype] * exact.abs()
    # inf - inf is NaN: equal infinities are no error, different ones are an infinite one
    error = torch.where(found.double() == exact, 0.0, (found.double() - exact).abs() / allowed)
    return float(torch.where(exact.isnan(), 0.0, error).nan_to_num(nan=float("inf")).max())
