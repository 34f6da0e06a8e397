"""Every kernel there is, by the name of its module."""

from __future__ import annotations

from kernels import (
    bias_gelu,
    bias_gelu_quantized,
    distill_loss,
    early_gradient,
    hidden_loss,
    int8_gemm,
    normalise,
    quantize_rows,
    residual_layernorm,
    residual_layernorm_quantized,
)
from kernels.ahead import Build
from kernels.tuning import Tunable

MODULES = (
    bias_gelu,
    residual_layernorm,
    distill_loss,
    early_gradient,
    hidden_loss,
    residual_layernorm_quantized,
    bias_gelu_quantized,
    quantize_rows,
    int8_gemm,
    normalise,
)


def builds() -> list[Build]:
    """All committed configurations, for the ahead-of-time lane."""
    return [build for module in MODULES for build in module.builds()]


def stems() -> list[str]:
    """The names of the modules, which are those of their tests, benchmarks and tuned files too."""
    return [module.__name__.rpartition(".")[2] for module in MODULES]


def tunables() -> list[Tunable]:
    """Every kernel whose sizes can be measured."""
    return [tunable for module in MODULES for tunable in getattr(module, "TUNABLES", ())]
