"""Which kernels this machine would use, why not the others, and which have sizes that were measured on its GPU."""

from __future__ import annotations

from dataclasses import dataclass

from kernels import catalog, tuning
from kernels.machine import Machine, why_no_triton

TRITON, REFERENCE = "Triton", "reference"


@dataclass(frozen=True)
class Line:
    """What becomes of one kernel here."""

    kernel: str  # the name of its module
    lane: str  # TRITON, or REFERENCE: plain PyTorch
    why: str  # empty for Triton
    tuned: str  # "NVIDIA H200, 4 sizes", "for NVIDIA H100, same architecture, 4 sizes", "no: heuristic"


def examine(machine: Machine) -> list[Line]:
    """A line for each kernel of the catalogue."""
    reason = why_no_triton(machine)
    lane = TRITON if reason is None else REFERENCE
    return [Line(stem, lane, reason or "", _tuned(stem, machine)) for stem in catalog.stems()]


def summary(machine: Machine) -> str:
    """One line for `limbeck doctor`."""
    reason = why_no_triton(machine)
    return f"fused kernels: {'on' if reason is None else f'off, {reason}'}"


def _tuned(stem: str, machine: Machine) -> str:
    try:
        entries = tuning.read(stem)
    except ValueError as error:
        return f"unreadable: {error}"
    same = [entry for entry in entries if entry.gpu == machine.gpu]
    kin = [entry for entry in entries if entry.arch == machine.arch]
    if same:
        return f"{machine.gpu}, {_count(len(same))}"
    if kin:
        return f"for {kin[0].gpu}, of the same architecture, {_count(len(kin))}"
    return "no: heuristic"


def _count(sizes: int) -> str:
    return "1 configuration" if sizes == 1 else f"{sizes} configurations"
