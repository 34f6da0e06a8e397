"""Masked losses between hidden states, mean squared difference and cosine, and their gradient in one pass.

    mse_bl = mean over h of (s - t)^2                                   (TinyBERT: Jiao et al. 2020, arXiv 1909.10351)
    cosine_bl = 1 - <s, t> / (max(|s|, e) max(|t|, e)),  e = 1e-8       (DistilBERT: Sanh et al. 2019, arXiv 1910.01108)
    loss = sum over the items b of the mean over their tokens l of (mse_weight mse_bl + cosine_weight cosine_bl)

s, t [B, L, H], mask [B, L], True where a token counts. Each item's part is divided by the number of its own tokens, so
that it does not depend on how far its batch was padded; nothing is divided by B. An item without tokens adds 0, with a
gradient of 0. What is not a token is never read: a NaN there does no harm. Student and teacher may have different
dtypes; all arithmetic is in fp32.

Memory-bound: of each token s and t are read once and ds is written once; of what is no token zeros are written. Tokens
of more than 8192 values go through the reference. The kernels are in `hidden_loss_kernels`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from kernels import early_gradient
from kernels.arguments import DTYPES
from kernels.hidden_loss_kernels import EPSILON, PARTS, TUNABLES, WIDEST, builds, launch
from kernels.runtime import runs_triton

__all__ = ["TUNABLES", "HiddenLoss", "builds", "hidden_loss", "reference"]


class HiddenLoss(NamedTuple):
    """`loss` [] can be differentiated; `parts` [2] are what the properties name."""

    loss: torch.Tensor
    parts: torch.Tensor

    @property
    def mse(self) -> torch.Tensor:
        """The part of the squared differences, without its weight."""
        return self.parts[0]

    @property
    def cosine(self) -> torch.Tensor:
        """The part of the angles, without its weight; 0 where that is 0."""
        return self.parts[1]


def hidden_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    mask: torch.Tensor | None = None,
    mse_weight: float = 1.0,
    cosine_weight: float = 0.0,
) -> HiddenLoss:
    """The loss between [B, L, H] of student and teacher under a mask bool [B, L], or over all of it: fp32, or fp64.

    Only `student` gets a gradient. Raises ValueError for shapes, dtypes or devices that do not fit.
    """
    _check(student, teacher, mask)
    wants_gradient = early_gradient.wanted(student)
    loss, parts, _ = _forward(student, teacher.detach(), mask, mse_weight, cosine_weight, wants_gradient)
    return HiddenLoss(loss, parts)


def reference(
    student: torch.Tensor,
    teacher: torch.Tensor,
    mask: torch.Tensor | None = None,
    mse_weight: float = 1.0,
    cosine_weight: float = 0.0,
) -> HiddenLoss:
    """The same in plain PyTorch, for autograd."""
    s, t, share = _counted(student, teacher, mask)
    mse = ((s - t).square().mean(dim=2) * share).sum()
    cosine = torch.zeros_like(mse)
    if cosine_weight:
        cosine = ((1 - F.cosine_similarity(s, t, dim=2, eps=EPSILON)) * share).sum()
    return HiddenLoss(mse_weight * mse + cosine_weight * cosine, torch.stack([mse.detach(), cosine.detach()]))


@torch.library.custom_op("limbeck::hidden_loss", mutates_args=())
def _forward(
    student: torch.Tensor,
    teacher: torch.Tensor,
    mask: torch.Tensor | None,
    mse_weight: float,
    cosine_weight: float,
    wants_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """loss [], parts [2] and the gradient [B, L, H], [0] where it is not wanted."""
    gradient = early_gradient.kept(student, wants_gradient)
    if _wide(student, teacher) == torch.float64 or student.shape[2] > WIDEST or not runs_triton(student):
        loss, parts = reference(student, teacher, mask, mse_weight, cosine_weight)
        if wants_gradient:
            gradient.copy_(_reference_gradient(student, teacher, mask, mse_weight, cosine_weight))
        return loss, parts, gradient
    loss, parts = (torch.empty(shape, dtype=torch.float32, device=student.device) for shape in ((), (PARTS,)))
    launch(student, teacher, mask, loss, parts, gradient, mse_weight, cosine_weight)
    return loss, parts, gradient


@_forward.register_fake
def _(
    student: torch.Tensor,
    teacher: torch.Tensor,
    mask: torch.Tensor | None,
    mse_weight: float,
    cosine_weight: float,
    wants_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    wide = _wide(student, teacher)
    loss, parts = (torch.empty(shape, dtype=wide, device=student.device) for shape in ((), (PARTS,)))
    return loss, parts, early_gradient.kept(student, wants_gradient)


def _setup_context(ctx: Any, inputs: tuple, output: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    early_gradient.save(ctx, inputs[0], *output)


def _differentiate(ctx: Any, factor: torch.Tensor | None, *unused: None) -> tuple[torch.Tensor | None, ...]:
    return early_gradient.scaled(ctx, factor), *[None] * 5


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _reference_gradient(
    student: torch.Tensor,
    teacher: torch.Tensor,
    mask: torch.Tensor | None,
    mse_weight: float,
    cosine_weight: float,
) -> torch.Tensor:
    """[B, L, H] by the formula: inside an operator there is no autograd."""
    s, t, share = _counted(student, teacher, mask)
    gradient = 2 * mse_weight / s.shape[2] * (s - t)
    if cosine_weight:
        s_long, t_long = (x.norm(dim=2, keepdim=True) for x in (s, t))
        s_norm, t_norm = s_long.clamp(min=EPSILON), t_long.clamp(min=EPSILON)
        cosine = (s * t).sum(dim=2, keepdim=True) / (s_norm * t_norm)
        bent = torch.where(s_long > EPSILON, cosine / s_norm.square(), 0) * s
        gradient = gradient - cosine_weight * (t / (s_norm * t_norm) - bent)
    return gradient * share[:, :, None]


def _counted(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both with zeros where there is no token, and the share of each token in its item's part: [B, L]."""
    wide = _wide(student, teacher)
    s, t = student.to(wide), teacher.detach().to(wide)
    if mask is None:
        return s, t, s.new_full(s.shape[:2], 1 / max(s.shape[1], 1))
    tokens = mask.sum(dim=1, keepdim=True).clamp(min=1)
    kept = mask[:, :, None]
    return torch.where(kept, s, 0), torch.where(kept, t, 0), mask.to(wide) / tokens


def _check(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor | None) -> None:
    if student.ndim != 3 or student.shape != teacher.shape or student.shape[2] == 0:
        raise ValueError(
            f"hidden_loss: student is {tuple(student.shape)} and teacher {tuple(teacher.shape)}: expected two times "
            "[B, L, H], with H > 0"
        )
    for name, states in (("student", student), ("teacher", teacher)):
        if states.dtype not in DTYPES:
            raise ValueError(f"hidden_loss: {name} is {states.dtype}: expected one of {', '.join(map(str, DTYPES))}")
    if mask is not None and (mask.shape != student.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(
            f"hidden_loss: mask is {mask.dtype} {tuple(mask.shape)}: expected torch.bool {tuple(student.shape[:2])}"
        )
    if len({each.device for each in (student, teacher, mask) if each is not None}) > 1:
        raise ValueError("hidden_loss: student, teacher and mask are on different devices: expected one")


def _wide(student: torch.Tensor, teacher: torch.Tensor) -> torch.dtype:
    return torch.float64 if torch.float64 in (student.dtype, teacher.dtype) else torch.float32
