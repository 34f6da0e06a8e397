"""Losses on the answers of teacher and student, each a sum over the batch (see `train.losses`). N items, K classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from train.distill.config import DistillConfig


def soft_targets(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 * sum of KL(teacher || student) at temperature T over logits [N, K] (Hinton et al. 2015, arXiv 1503.02531).

    T^2 keeps the size of the gradient as T changes (section 2 there), so that alpha means the same at every T.
    """
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(log_student, log_teacher, log_target=True, reduction="sum")


def answers_loss(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, config: DistillConfig
) -> torch.Tensor:
    """The loss that `config.method` names, over logits [N, K] and labels int64 [N]."""
    return soft_targets(student, teacher, config.temperature)
