"""Whether the kernel of a loss pays: judged on the tensors that the loss really gets, as `fuse` judges a layer.

Both ways are compared with the plain one in fp64, value and gradient: where student and teacher are all but one, a loss
is next to nothing beside its terms, and fp32 gives neither way its digits. Then both are timed, forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from kernels.fuse import FuseOptions
from kernels.ledger import Entry
from kernels.parity import TOLERANCES, Call, difference, outcome
from kernels.site_timing import Times, measure
from kernels.verdict import chosen, failed

LossFunction = Callable[..., torch.Tensor]  # (student, *others) to a scalar
CONDITION = 4  # times the plain way's own error in the same arithmetic: so far rounding may take a kernel that is right
NO_NUMBER = "the loss of this batch is no number, so nothing can be compared"
_measured: dict[tuple[object, ...], Times] = {}  # of like losses in this process: several students have one teacher


@dataclass(frozen=True)
class Loss:
    """A loss in both ways, and what it is called with: only `student` gets a gradient."""

    name: str  # in the ledger: "soft targets and labels"
    kernel: str  # its module in kernels/
    plain: LossFunction
    fused: LossFunction
    student: torch.Tensor
    others: tuple[torch.Tensor, ...] = ()


def judge_loss(loss: Loss, options: FuseOptions) -> Entry:
    """Whether the kernel is right on these tensors, and faster than eager PyTorch and torch.compile; or why not.

    `options` as of `fuse`; only timer and force count. Raises nothing: what fails is not kept.
    """
    entry = Entry(site=loss.name, kernel=loss.kernel, kept=False, why="")
    try:
        error, said = _compared(loss)
        entry = replace(entry, error=error, why=said)
        return entry if said else chosen(entry, _times(loss, options), options.force)
    except Exception as problem:  # to compile, for memory, by what it refuses
        return replace(entry, why=failed(problem))


class _Module(nn.Module):
    """A loss that can be fused and restored, so that it is compared and timed as a site is."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self._ways, self._by_kernel = (loss.plain, loss.fused), False

    def forward(self, student: torch.Tensor, others: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return self._ways[self._by_kernel](student, *others)

    @contextmanager
    def fused(self) -> Iterator[nn.Module]:
        self._by_kernel = True
        try:
            yield self
        finally:
            self._by_kernel = False


def _compared(loss: Loss) -> tuple[float | None, str]:
    """The kernel's error in fp32 and what is wrong with it, "" where nothing is; in half too where it gets that."""
    module, given = _Module(loss), (loss.student, *loss.others)
    narrow = any(each.is_floating_point() and each.itemsize < 4 for each in given)
    first: float | None = None
    for tensors in (_as(given, torch.float32), given) if narrow else (given,):
        exact = outcome(module, _call(_as(tensors, torch.float64)))
        if not all(bool(torch.isfinite(each).all()) for each in exact):
            return None, NO_NUMBER
        own = difference(outcome(module, _call(tensors)), exact)
        with module.fused():
            error = difference(outcome(module, _call(tensors)), exact)
        first = error if first is None else first
        allowed = max(TOLERANCES[tensors[0].dtype], CONDITION * own)
        if error == float("inf") or error > allowed:
            where = f"in {_short(tensors[0].dtype)} it" if tensors is given and narrow else "it"
            return first, f"{where} is off by {error:.1e} of the largest value, and may be by {allowed:.0e}"
    return first, ""


def _times(loss: Loss, options: FuseOptions) -> Times | None:
    timer = options.timer_on(loss.student.device)
    if timer is None:
        return None
    tensors = loss.student, *loss.others
    shapes = tuple((tuple(each.shape), each.stride(), each.dtype) for each in tensors)
    key = (loss.name, shapes, loss.student.device, timer)
    if key not in _measured:
        module = _Module(loss)
        _measured[key] = measure(module, module.fused, _call(tensors), timer, backward=True, compiled=False)
    return _measured[key]


def _call(tensors: tuple[torch.Tensor, ...]) -> Call:
    """The student alone as an argument of its own, since whatever else floats there would be given a gradient too."""
    student, *others = tensors
    return Call((student.detach().requires_grad_(), tuple(each.detach() for each in others)), {})


def _as(tensors: tuple[torch.Tensor, ...], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    return tuple(each.to(dtype) if each.is_floating_point() else each for each in tensors)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
