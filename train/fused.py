"""`fit.kernels`: whether a training may take fused kernels (`kernels/`), where a GPU runs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from kernels.runtime import runs_triton

Kernels = Literal["auto", "off"]

# Of the process, and no context variable: a layer that is computed again for its gradient may run in autograd's thread.
_allowed: bool = False


def fused(tensor: torch.Tensor) -> bool:
    """Whether what is done with `tensor` goes through a fused kernel: a training allows it, and its device can.

    False outside of trainings, where plain operators are what is measured, exported and compared.
    """
    return _allowed and runs_triton(tensor)


@contextmanager
def kernels_allowed(wish: Kernels) -> Iterator[None]:
    """For a while `fused` may say yes, unless `wish` is "off"."""
    global _allowed
    before, _allowed = _allowed, wish != "off"
    try:
        yield
    finally:
        _allowed = before
