"""GELU and its derivative inside of kernels, exact and in the tanh approximation (Hendrycks & Gimpel 2016, 1606.08415).

    exact  u Phi(u) = u/2 (1 + erf(u / sqrt 2))
    tanh   u/2 (1 + tanh t) = u sigmoid(2t),  t = sqrt(2 / pi) (u + 0.044715 u^3)     (`gelu_new`, GPT-2)

tanh is written by exp, for Triton's interpreter has no libdevice.
"""

from __future__ import annotations

from kernels.runtime import jit, tl

APPROXIMATIONS = ("none", "tanh")  # as torch.nn.functional.gelu names them


def check_approximation(op: str, approximate: str) -> None:
    """Raise ValueError for another approximation than torch's."""
    if approximate not in APPROXIMATIONS:
        raise ValueError(f"{op}: approximate is {approximate!r}: expected one of {APPROXIMATIONS}")


@jit
def gelu(u, TANH: tl.constexpr):
    """gelu(u) of fp32 u."""
    if TANH:
        return u / (1.0 + tl.exp(-1.5957691216057308 * (u + 0.044715 * u * u * u)))
    return u * 0.5 * (1.0 + tl.erf(u * 0.7071067811865476))


@jit
def gelu_slope(u, TANH: tl.constexpr):
    """The derivative of gelu at fp32 u."""
    if TANH:
        share = 1.0 / (1.0 + tl.exp(-1.5957691216057308 * (u + 0.044715 * u * u * u)))  # sigmoid(2t)
        return share + u * share * (1.0 - share) * 1.5957691216057308 * (1.0 + 0.134145 * u * u)
    density = 0.3989422804014327 * tl.exp(-0.5 * u * u)  # of N(0, 1)
    return 0.5 * (1.0 + tl.erf(u * 0.7071067811865476)) + u * density
