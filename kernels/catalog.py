"""Every kernel there is, by the name of its module."""

from __future__ import annotations

from kernels import bias_gelu
from kernels.ahead import Build

MODULES = (bias_gelu,)


def builds() -> list[Build]:
    """All committed configurations, for the ahead-of-time lane."""
    return [build for module in MODULES for build in module.builds()]
