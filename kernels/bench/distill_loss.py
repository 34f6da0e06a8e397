"""Soft targets + cross-entropy, gradient and counters: ImageNet's classes, the widest in registers, a vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import distill_loss as module
from kernels.bench.case import COMPILE, Case, Inputs, Target
from kernels.distill_loss_kernels import IN_REGISTERS, IN_ROWS, IN_SWEEPS

TEMPERATURE = 2.0
ALPHA = BETA = 5.0  # so large that gradients are not small beside the tolerance


def cases() -> list[Case]:
    return [_both(1000, 135_168), _both(50_257, 4096), _both(4096, 32_768)]


def _ours(student: Tensor, teacher: Tensor, labels: Tensor) -> module.DistillLoss:
    return module.distill_loss(student, teacher, labels, TEMPERATURE, ALPHA, BETA)


def _plain(student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and what a curve shows of it, in fp32 as a careful user writes it."""
    s, t = (each if each.dtype == torch.float64 else each.float() for each in (student, teacher))
    log_p, log_q = F.log_softmax(s / TEMPERATURE, dim=1), F.log_softmax(t / TEMPERATURE, dim=1)
    soft = TEMPERATURE**2 * F.kl_div(log_p, log_q, reduction="sum", log_target=True)
    hard = F.cross_entropy(s, labels, reduction="sum")
    return ALPHA * soft + BETA * hard, _counted(s, t, labels, soft, hard)


def _liger() -> Callable[..., tuple[Tensor, Tensor]]:
    """Its two losses, for it has none of both in one pass."""
    from liger_kernel.transformers.functional import liger_cross_entropy, liger_kl_div

    def loss(student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        log_p = F.log_softmax(student.float() / TEMPERATURE, dim=1)
        log_q = F.log_softmax(teacher.float() / TEMPERATURE, dim=1)
        soft = TEMPERATURE**2 * liger_kl_div(log_p, log_q, reduction="sum", log_target=True)
        hard = liger_cross_entropy(student, labels, reduction="sum")
        return ALPHA * soft + BETA * hard, _counted(student, teacher, labels, soft, hard)

    return loss


def _counted(s: Tensor, t: Tensor, labels: Tensor, soft: Tensor, hard: Tensor) -> Tensor:
    top, their_top = s.detach().argmax(dim=1), t.argmax(dim=1)
    counts = [(found == wanted).sum() for found, wanted in ((top, labels), (their_top, labels), (top, their_top))]
    return torch.stack([soft.detach(), hard.detach(), *counts])


def _both(columns: int, rows: int) -> Case:
    narrow = columns <= IN_REGISTERS
    return Case(
        kernel="distill_loss",
        name=f"loss and gradient bf16 K={columns}",
        dtype=torch.bfloat16,
        rows=rows,
        make=lambda rows, device: _inputs(rows, columns, device),
        ours=_ours,
        plain=_plain,
        moved=lambda inputs: 3 * inputs[0].nbytes,  # both logits are read, the gradient written
        mode="both",
        leaves=(0,),
        summed=4,  # softmaxes, their sums, and two parts
        sums=(0,),
        targets=(Target("roof", 0.8 if narrow else 0.7), Target(COMPILE, 1.3)),
        liger=_liger,
        tunes=(IN_ROWS if narrow else IN_SWEEPS,),
        dimensions=(("C", columns), ("ALIGN", 1 if columns % 8 else 8)),
    )


def _inputs(rows: int, columns: int, device: torch.device) -> Inputs:
    student, teacher = (3 * torch.randn(rows, columns, device=device) for _ in range(2))
    labels = torch.randint(columns, (rows,), device=device)
    return student.to(torch.bfloat16), teacher.to(torch.bfloat16), labels
