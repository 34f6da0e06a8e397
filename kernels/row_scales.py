"""Symmetric quantization with one scale a row: y ~ scale * codes, scale = max |y| / limit.

Codes are int8 in -127..127 (a symmetric range, as int8 matrix products want it) or fp8 e4m3 (largest value 448). A row
with NaN or infinity has no codes that could say so: its scale is NaN and its codes are 0, so a product shows it. A row
of zeros has the least scale and zeros.
"""

from __future__ import annotations

import torch

from kernels.runtime import interprets, jit, tl

LIMITS = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
LEAST = 1e-30  # of a row's maximum: below, 1 / scale would overflow
FP8_OLDEST = (8, 9)  # compute capability that converts to e4m3; Triton has no conversion for older ones
_LEAST = LEAST if tl is None else tl.constexpr(LEAST)


def check_codes(op: str, dtype: torch.dtype) -> None:
    """Raise ValueError for another dtype of codes."""
    if dtype not in LIMITS:
        names = ", ".join(str(each).removeprefix("torch.") for each in LIMITS)
        raise ValueError(f"{op}: codes of {str(dtype).removeprefix('torch.')}: expected one of {names}")


def converts(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a kernel on `device` can make codes of `dtype`: Triton's interpreter makes wrong fp8 ones silently."""
    if dtype == torch.int8:
        return True
    return not interprets() and device.type == "cuda" and torch.cuda.get_device_capability(device) >= FP8_OLDEST


def reference(y: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """codes of `dtype` [..., C] and scales fp32 [...] of y [..., C], in plain PyTorch."""
    limit, y = LIMITS[dtype], y.float()
    scale = y.abs().amax(dim=-1).clamp_min(LEAST) * (1 / limit)
    scale = torch.where(y.isfinite().all(dim=-1), scale, torch.nan)
    codes = torch.where(scale.isnan().unsqueeze(-1), 0.0, y * (1 / scale).unsqueeze(-1))
    return (codes.round() if dtype == torch.int8 else codes).to(dtype), scale


@jit
def most_of(y):
    """The largest |y| of each row of a tile fp32 [R, B], NaN where one is NaN or infinite; y is 0 outside of it."""
    return tl.max(tl.abs(y), axis=1) + tl.sum(y * 0.0, axis=1)  # tl.max passes over NaN, the sum does not


@jit
def scale_of(most, LIMIT: tl.constexpr):
    """The scales fp32 [R] for the largest values [R]."""
    return tl.where(most < _LEAST, _LEAST, most) * (1.0 / LIMIT)


@jit
def codes_of(y, scale, LIMIT: tl.constexpr):
    """The codes of y [R, B]: whole numbers as int8 if LIMIT is 127, else fp8 e4m3."""
    inverse = tl.where(scale == scale, tl.div_rn(tl.full(scale.shape, 1.0, tl.float32), scale), 0.0)
    scaled = tl.where((scale == scale)[:, None], y * inverse[:, None], 0.0)
    if LIMIT == 127.0:
        codes = ((scaled + 12582912.0) - 12582912.0).to(tl.int8)  # 1.5 * 2^23 has no digits behind the point: to even
    else:
        codes = scaled.to(tl.float8e4nv)
    return codes
