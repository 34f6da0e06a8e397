"""Where an operator runs: as Triton kernel on an NVIDIA GPU, in Triton's interpreter, or as its plain reference.

Nothing here touches CUDA before the first tensor on it is seen, and without Triton everything still imports.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

try:
    import triton as triton
    import triton.language as tl
except ImportError:  # Triton has no wheel for this system
    triton = tl = None

__all__ = ["interpreted", "interprets", "jit", "multiprocessors", "runs_triton", "tl", "too_old", "triton", "why_not"]

LOG = logging.getLogger("limbeck.kernels")
OLDEST = (8, 0)  # compute capability; older GPUs have no bf16, and nothing is committed for them
_interpreted: ContextVar[bool] = ContextVar("interpreted", default=False)


def jit(function: Callable[..., Any]) -> Any:
    """`triton.jit`, or the bare function where there is no Triton to call it."""
    return function if triton is None else triton.jit(function)


def why_not(device: torch.device) -> str | None:
    """Why tensors on `device` go through the plain references; None where they go through Triton."""
    if triton is None:
        return "Triton is not installed"
    if _interpreted.get():
        return None
    if device.type != "cuda":
        return f"the tensors are on {device.type}: Triton needs an NVIDIA GPU"
    if interprets():
        return "TRITON_INTERPRET=1 is set, and it reads no memory of a GPU"
    if device.index is not None and device.index != (current := torch.cuda.current_device()):
        return f"the tensors are on {device} and the current device is cuda:{current}, where Triton would launch"
    return _unfit(device)


def runs_triton(tensor: torch.Tensor) -> bool:
    """Whether the operator that got `tensor` launches its kernel; if not, the reason is logged once."""
    reason = why_not(tensor.device)
    if reason is not None:
        _say_once(reason)
    return reason is None


@contextmanager
def interpreted() -> Iterator[None]:
    """Run the kernels on CPU tensors in Triton's interpreter: slow, and right in fp32 and fp16 only.

    For tests. Raises RuntimeError unless TRITON_INTERPRET=1 was set before Triton was imported.
    """
    if not interprets():
        raise RuntimeError("Triton's interpreter is off: set TRITON_INTERPRET=1 before anything imports kernels")
    token = _interpreted.set(True)
    try:
        yield
    finally:
        _interpreted.reset(token)


def interprets() -> bool:
    """Whether TRITON_INTERPRET=1 was set before Triton was imported: kernels are interpreted, never compiled."""
    return triton is not None and bool(triton.knobs.runtime.interpret)


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """How many SMs the GPU has; 1 in Triton's interpreter, so that a program there has several tiles to go through."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def too_old(capability: tuple[int, int]) -> str | None:
    """Why a GPU of this compute capability takes the references; None where it does not."""
    if capability >= OLDEST:
        return None
    found, needed = (".".join(map(str, version)) for version in (capability, OLDEST))
    return f"the GPU has compute capability {found}: the kernels need {needed}"


@functools.cache
def _unfit(device: torch.device) -> str | None:
    from kernels.machine import misfit  # reads what is installed: only where there is a GPU

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return too_old(torch.cuda.get_device_capability(device)) or misfit()


@functools.cache
def _say_once(reason: str) -> None:
    LOG.info("fused kernels are off: %s; the plain PyTorch operators run", reason)
