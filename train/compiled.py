"""`fit.compile`: the network runs through torch.compile while it is trained; its weights keep their names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from serve.errors import UserError

BACKEND = "inductor"  # torch's default


@contextmanager
def compiled(network: nn.Module, device: torch.device) -> Iterator[None]:
    """For a while `network` is compiled, for each shape and mode anew when it first meets it. Raises UserError.

    `nn.Module.compile` wraps nothing: what is saved, exported and counted is the module itself.
    """
    check_compiler(device)
    network.compile(backend=BACKEND)
    try:
        yield
    finally:
        network._compiled_call_impl = None
        torch.compiler.reset()


def check_compiler(device: torch.device) -> None:
    """Raise UserError unless torch.compile works here: what it needs is a compiler, and on a GPU Triton.

    It is tried, since what may lack is more than a name in PATH: headers, a writable cache.
    """
    try:
        torch.compile(_little, backend=BACKEND)(torch.ones(2, device=device))
    except Exception as error:  # torch has many, and what a compiler prints is in none of them in the same way
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"fit.compile: torch.compile does not work on this machine: {reason.strip()[:300]}",
            "install a C++ compiler (Debian: apt-get install g++ python3-dev) and, for a GPU, Triton; or leave it out",
        ) from None


def _little(values: torch.Tensor) -> torch.Tensor:
    return torch.sin(values) + 1
