"""One question to a benchmark: inputs as users have them, what is computed, what that moves, what it is to reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from kernels.tolerances import excess
from kernels.tuning import Tunable

Mode = Literal["forward", "backward", "both"]  # both: forward and backward, as a training step has them
Roof = Literal["copy", "bf16", "int8"]
Inputs = tuple[Any, ...]
Function = Callable[..., Any]

OURS, EAGER, COMPILE, AUTOTUNE, LIGER = "limbeck", "eager", "compile", "compile max-autotune", "liger"


@dataclass(frozen=True)
class Target:
    """At least `wanted`: of the roof's rate, or times as fast as a contender ("compile": the better of both)."""

    against: str  # "roof", or a contender
    wanted: float

    def __str__(self) -> str:
        return f">= {self.wanted:.0%} of the roof" if self.against == "roof" else f">= {self.wanted:g}x {self.against}"


@dataclass(frozen=True)
class Case:
    """`plain` computes in its inputs' dtype, so that with fp64 inputs it is the exact reference of all contenders."""

    kernel: str  # the name of its module
    name: str
    dtype: torch.dtype
    rows: int  # for which the tensors take >= 256 MB
    make: Callable[[int, torch.device], Inputs]  # (rows, device) to random inputs
    ours: Function
    plain: Function
    moved: Callable[
        [Inputs], int
    ]  # bytes that must be read and written, or floating point operations for a matrix roof
    mode: Mode = "forward"
    reference: Function | None = None  # in fp64, where `plain` computes something else by design
    leaves: tuple[int, ...] = ()  # the inputs that get gradients
    summed: int = 1  # multiples of the absolute tolerance, for sums within a row
    sums: tuple[int, ...] = ()  # the places of outputs that are sums over all rows: as many as these
    roof: Roof = "copy"
    targets: tuple[Target, ...] = ()
    liger: Callable[[], Function] | None = None  # imports Liger, and gives what computes the same
    others: tuple[tuple[str, Function], ...] = ()  # further contenders by name
    seen: Callable[[Any], Sequence[Tensor]] | None = None  # what of the outputs is compared
    fixed: bool = False  # its inputs are of no other dtype
    waits: bool = False  # it copies small tensors from the host, for which the host waits
    tolerated: float = 1.0  # multiples of the usual tolerance: quantized outputs differ by a step
    tunes: tuple[Tunable, ...] = ()
    dimensions: tuple[tuple[str, int], ...] = ()  # by which its tunables are asked

    @property
    def title(self) -> str:
        return f"{self.kernel} {self.name}"


def runner(case: Case, function: Function, inputs: Inputs) -> Callable[[], Any]:
    """What is timed: one forward pass, one backward pass over a graph that is there, or both."""
    if case.mode == "forward":
        return _without_gradients(function, inputs)
    given = list(inputs)
    for place in case.leaves:
        given[place] = inputs[place].detach().requires_grad_()
    leaves = [given[place] for place in case.leaves]
    kept: list[Tensor] = []

    def gradients(again: bool) -> tuple[Tensor, ...]:
        return torch.autograd.grad(kept[0], leaves, _factor(kept[0]), retain_graph=again)

    def both() -> tuple[Tensor, ...]:
        kept[:] = [_first(function(*given))]
        return kept[0].detach(), *gradients(again=False)

    def backward() -> tuple[Tensor, ...]:
        return gradients(again=True)

    if case.mode == "both":
        return both
    kept.append(_first(function(*given)))
    return backward


def exact(case: Case, inputs: Inputs) -> list[Tensor]:
    """What is right: the plain function in fp64, or the reference that the case has instead."""
    doubles = [each.double() if _floating(each) else each for each in inputs]
    return outputs(case, runner(case, case.reference or case.plain, tuple(doubles))())


def error(case: Case, found: Any, right: list[Tensor]) -> float:
    """The largest error as a multiple of what is tolerated; up to 1 is right."""
    mine = outputs(case, found)
    if len(mine) != len(right):
        return float("inf")
    terms = [case.rows if place in case.sums else case.summed for place in range(len(mine))]
    return max(map(excess, mine, right, terms)) / case.tolerated


def outputs(case: Case, found: Any) -> list[Tensor]:
    if case.seen is not None:
        return list(case.seen(found))
    return [found] if isinstance(found, Tensor) else list(found)


def compiled(function: Function, mode: str | None = None, backend: str = "inductor") -> Function:
    """`function` by torch.compile for these shapes alone; a graph that is kept may be run backward more than once."""
    torch._functorch.config.donated_buffer = False
    return torch.compile(function, dynamic=False, fullgraph=True, mode=mode, backend=backend)


def _without_gradients(function: Function, inputs: Inputs) -> Callable[[], Any]:
    def forward() -> Any:
        with torch.no_grad():
            return function(*inputs)

    return forward


def _factor(output: Tensor) -> Tensor | None:
    """The incoming gradient: 1 for a loss, else numbers that are made again alike, in any dtype."""
    if output.ndim == 0:
        return None
    flat = torch.arange(output.shape[-1], device=output.device) % 7 - 3
    return (flat / 4).to(output.dtype).expand(output.shape).contiguous()  # exact in every dtype


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
