"""Losses, each a sum over the batch: who calls them divides by the number of items in the whole update.

Dividing here by the micro-batch would make the update depend on how accumulation splits it (trl#6006).
N items, K classes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field


class DistillConfig(BaseModel):
    """[students.distill]: how the student learns from the teacher."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["soft-targets"] = "soft-targets"
    temperature: float = Field(default=4.0, gt=0)
    alpha: float = Field(default=0.9, gt=0, le=1)  # share of the teacher; 1 - alpha stays with the labels


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Sum of -log p(label) over logits [N, K] and labels int64 [N]."""
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="sum")


def soft_targets(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 * sum of KL(teacher || student) at temperature T over logits [N, K] (Hinton et al. 2015, arXiv 1503.02531).

    T^2 keeps the size of the gradient as T changes (section 2 there), so that alpha means the same at every T.
    """
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(log_student, log_teacher, log_target=True, reduction="sum")


def distillation(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, config: DistillConfig, label_smoothing: float
) -> torch.Tensor:
    """alpha * soft targets + (1 - alpha) * cross-entropy, summed over the batch."""
    soft = soft_targets(student, teacher, config.temperature)
    if config.alpha == 1.0:
        return soft
    return config.alpha * soft + (1 - config.alpha) * cross_entropy(student, labels, label_smoothing)
