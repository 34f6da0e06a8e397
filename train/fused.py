"""`fit.kernels` and losses: which of them a training computes by a fused kernel (`kernels/`), and how that is chosen.

A loss that has a kernel asks `either`. Before a training all of them are called once on a batch (`rehearsing`) and
judged as layers are; those that won are taken while it lasts (`losses_by_kernel`). Anywhere else all are plain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from kernels.fuse import FuseOptions
from kernels.ledger import Entry
from kernels.loss_choice import Loss, LossFunction, judge_loss
from kernels.runtime import runs_triton

Kernels = Literal["auto", "off"]

# Of the process, and no context variable: what is computed again for its gradient may run in autograd's thread.
_by_kernel: frozenset[str] = frozenset()
_rehearsal: Rehearsal | None = None


class Rehearsal:
    """A pass in which no loss is learned from: each that has a kernel is judged when it is first called."""

    def __init__(self, options: FuseOptions) -> None:
        self._options = options
        self._entries: dict[str, Entry] = {}

    @property
    def entries(self) -> tuple[Entry, ...]:
        """In the order in which they were called."""
        return tuple(self._entries.values())

    def hear(self, loss: Loss) -> None:
        if loss.name not in self._entries:
            self._entries[loss.name] = judge_loss(loss, self._options)


def either(
    name: str, kernel: str, plain: LossFunction, fused: LossFunction, student: torch.Tensor, *others: torch.Tensor
) -> torch.Tensor:
    """A loss [] of `student` and `others` by `fused` where a training found that it pays, else by `plain`.

    `name` stands for it in the ledger: losses that differ in their shapes, but for items and tokens, have different
    ones. `kernel` is the module of `fused`. Only `student` gets a gradient.
    """
    if _rehearsal is not None:
        _rehearsal.hear(Loss(name, kernel, plain, fused, student, others))
    elif name in _by_kernel and runs_triton(student):
        return fused(student, *others)
    return plain(student, *others)


@contextmanager
def losses_by_kernel(names: Iterable[str]) -> Iterator[None]:
    """For a while these losses go through their kernels, where a device runs them, and no other."""
    global _by_kernel
    before, _by_kernel = _by_kernel, frozenset(names)
    try:
        yield
    finally:
        _by_kernel = before


@contextmanager
def rehearsing(options: FuseOptions) -> Iterator[Rehearsal]:
    """For a while each loss is judged when it is first called, and computed plainly."""
    global _rehearsal
    _rehearsal = found = Rehearsal(options)
    try:
        yield found
    finally:
        _rehearsal = None
