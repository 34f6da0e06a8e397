"""Losses between hidden states of texts of 16 to 128 tokens, at the widths of MiniLM and BERT. A row is a text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import hidden_loss as module
from kernels.bench.case import COMPILE, Case, Function, Inputs, Target
from kernels.hidden_loss_kernels import TOKENS

LENGTH = 128
WEIGHT = 1000.0  # so large that gradients are not small beside the tolerance


def cases() -> list[Case]:
    return [_case(384, 2816, 0.0), _case(768, 1408, WEIGHT)]


def _ours(cosine_weight: float) -> Function:
    return lambda student, teacher, mask: module.hidden_loss(student, teacher, mask, WEIGHT, cosine_weight)


def _plain(cosine_weight: float) -> Function:
    def loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        s, t = (each if each.dtype == torch.float64 else each.float() for each in (student, teacher))
        apart = WEIGHT * (s - t).square().mean(dim=2)
        if cosine_weight:
            apart = apart + cosine_weight * (1 - F.cosine_similarity(s, t, dim=2))
        return ((apart * mask).sum(dim=1) / mask.sum(dim=1)).sum()

    return loss


def _case(width: int, rows: int, cosine_weight: float) -> Case:
    return Case(
        kernel="hidden_loss",
        name=f"{'mse + cosine' if cosine_weight else 'mse'} and gradient bf16 H={width}",
        dtype=torch.bfloat16,
        rows=rows,
        make=lambda rows, device: _inputs(rows, width, device),
        ours=_ours(cosine_weight),
        plain=_plain(cosine_weight),
        moved=_moved,
        mode="both",
        leaves=(0,),
        sums=(0,),
        targets=(Target("roof", 0.8), Target(COMPILE, 1.2)),
        tunes=(TOKENS,),
        dimensions=(("H", width), ("ALIGN", 8)),
    )


def _moved(inputs: Inputs) -> int:
    """Both states of each token are read; the gradient is written for what is no token too."""
    student, _, mask = inputs
    tokens = int(mask.sum())
    return 2 * tokens * student.shape[2] * student.element_size() + int(student.nbytes)


def _inputs(rows: int, width: int, device: torch.device) -> Inputs:
    student, teacher = (torch.randn(rows, LENGTH, width, device=device).to(torch.bfloat16) for _ in range(2))
    tokens = torch.randint(16, LENGTH + 1, (rows, 1), device=device)
    return student, teacher, torch.arange(LENGTH, device=device) < tokens
