"""Whether a fused module drops as the plain one does while it is trained (Srivastava et al. 2014, JMLR 15, 1929).

In evaluation nothing is dropped, so `parity` cannot see it. Which elements a kernel keeps is its own affair: they are
read off from its gradients. With x what is dropped and z = residual + dropout(x), dx is dz / (1 - p) where x was kept
and 0 where not. The plain module, given these elements in the place of random ones of its own, must give the same
output and gradients: then nothing is dropped forwards that is not dropped backwards.

All other dropout of the module is off meanwhile. x, z, their gradients and masks are [B, L, H].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kernels.parity import TOLERANCES, Call, difference, outcome
from kernels.sites import Site

SEED = 20_140_601  # any number; the one after it is taken too
FALSE_ALARM = 1e-9  # the probability with which chance alone makes a kernel look wrong


@dataclass(frozen=True)
class _Pass:
    """What one pass forwards and backwards gave: the output, the gradients of inputs, of parameters, and dx at last."""

    found: list[torch.Tensor]
    dz: torch.Tensor

    @property
    def dx(self) -> torch.Tensor:
        return self.found[-1]


def complaint(site: Site, call: Call) -> str:
    """What is wrong with how the fused `site` drops while it is trained on `call`; "" where nothing is, or is dropped.

    The network is `still`. torch's generator of the device is seeded anew: to restore it is the caller's affair.
    """
    if site.kind.drops is None or not _dropout(site).p:
        return ""
    p = _dropout(site).p
    with site.fused():
        first, again, other = (_pass(site, call, *turn) for turn in ((SEED, 0), (SEED, 1), (SEED + 1, 0)))
        without = _off_at_zero(site, call)
    kept = (first.dx != 0) | (again.dx != 0)  # one gradient alone may be 0 by chance, or for want of digits
    said = _misdrawn((first, again, other), kept, p)
    if said:
        return f"as trained {said}"
    allowed = TOLERANCES[first.dx.dtype]
    off = difference(first.found, _pass(site, call, SEED, 0, kept).found)
    if off > allowed:
        return f"as trained it is off by {off:.1e} of the largest value, dropping the same, and may be by {allowed:.0e}"
    if without > allowed:
        return f"as trained with p = 0 it is off by {without:.1e} from evaluation, and may be by {allowed:.0e}"
    return ""


def unlikely(kept: int, of: int, p: float) -> bool:
    """Whether chance, with probability 1 - p for each, keeps `kept` of `of` elements in less than FALSE_ALARM of cases.

    By Chernoff's bound, n KL(kept / n || 1 - p), which holds for any n (Hoeffding 1963, JASA 58, 13, theorem 1).
    """
    share = kept / of
    pairs = ((share, 1 - p), (1 - share, p))
    return of * sum(found * math.log(found / right) for found, right in pairs if found) > math.log(2 / FALSE_ALARM)


def _misdrawn(passes: Sequence[_Pass], kept: torch.Tensor, p: float) -> str:
    """What is wrong with the elements that were kept, for two gradients of one seed and for another seed."""
    first, again, other = passes
    if not all(bool(torch.isfinite(tensor).all()) for each in passes for tensor in each.found):
        return "it gives what is no number"
    if bool(((first.dz == 0) & (again.dz == 0)).any()):
        return "its dropout cannot be seen: the gradient behind it is 0"
    if any(_unscaled(each, p) for each in passes):
        return f"its gradient is neither 0 nor that behind the dropout / (1 - {p:g})"
    for each in passes:
        count, of = int((each.dx != 0).sum()), int((each.dz != 0).sum())
        if unlikely(count, of, p):
            return f"it keeps {count / of:.4f} of the elements, and should {1 - p:g}"
    seen = (first.dz != 0) & (again.dz != 0)
    if bool((seen & ((first.dx != 0) != (again.dx != 0))).any()):
        return "the same seed does not drop the same elements"
    by_chance = kept.numel() * math.log(p**2 + (1 - p) ** 2)  # the logarithm of the probability that two masks are one
    if by_chance < math.log(FALSE_ALARM) and torch.equal(other.dx != 0, kept):
        return "another seed drops the same elements"
    return ""


def _unscaled(each: _Pass, p: float) -> bool:
    """Whether any dx is neither 0 nor dz / (1 - p), within two roundings of each."""
    kinds = torch.finfo(each.dx.dtype), torch.finfo(each.dz.dtype)
    dx, right = each.dx.double(), each.dz.double() / (1 - p)
    allowed = 2 * max(kind.eps for kind in kinds) * right.abs() + 2 * max(
        kind.smallest_normal * kind.eps for kind in kinds
    )
    return bool(((dx != 0) & ~((dx - right).abs() <= allowed)).any())


def _pass(site: Site, call: Call, seed: int, gradient: int, kept: torch.Tensor | None = None) -> _Pass:
    """In training, with the `gradient`-th gradient of the output; with `kept` these elements are, by the plain module.

    x is cut off from what made it, so that the one input that still has a gradient is the residual.
    """
    assert site.kind.drops is not None
    cut: list[torch.Tensor] = []

    def cut_off(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        x, *others = output if isinstance(output, tuple) else (output,)
        cut.append(x.detach().requires_grad_())
        return (cut[0], *others) if isinstance(output, tuple) else cut[0]

    leaves = call.leaves()
    _seed(call.device, seed)
    handle = getattr(site.module, site.kind.drops).register_forward_hook(cut_off)
    try:
        with _training(_dropout(site), _dropout(site).p, kept):
            found = outcome(site.module, leaves, also=cut, gradient=gradient)
    finally:
        handle.remove()
    of_inputs = found[1 : 1 + len(leaves.inputs)]
    return _Pass(found, next((each for each in of_inputs if bool(each.any())), torch.zeros_like(found[-1])))


def _off_at_zero(site: Site, call: Call) -> float:
    """How far training with p = 0 is from evaluation."""
    evaluated = outcome(site.module, call.leaves())
    with _training(_dropout(site), 0.0):
        return difference(outcome(site.module, call.leaves()), evaluated)


@contextmanager
def _training(dropout: nn.Dropout, p: float, kept: torch.Tensor | None = None) -> Iterator[None]:
    """`dropout` in training with `p`, for a kernel to ask. Called itself it drops nothing, but keeps `kept` once."""
    masks = [] if kept is None else [kept]

    def forward(x: torch.Tensor) -> torch.Tensor:
        return torch.where(masks.pop(), x / (1 - p), 0.0) if masks else x

    before = dropout.p, dropout.training
    dropout.p, dropout.training = p, True
    vars(dropout)["forward"] = forward  # before that of its class
    try:
        yield
    finally:
        dropout.p, dropout.training = before
        del vars(dropout)["forward"]


def _dropout(site: Site) -> nn.Dropout:
    dropout = site.module.dropout
    assert isinstance(dropout, nn.Dropout)
    return dropout


def _seed(device: torch.device, seed: int) -> None:
    """That device's generator alone: torch.manual_seed would change those of other GPUs too."""
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
