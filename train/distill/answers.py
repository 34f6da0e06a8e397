"""Which loss on the answers a recipe's `method` means."""

from __future__ import annotations

import torch

from serve.errors import UserError
from train.distill.config import DistillConfig
from train.distill.correlated import correlated
from train.distill.decoupled import decoupled
from train.distill.logits import logits_mse, soft_targets
from train.sources.base import UNLABELLED


def answers_loss(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, config: DistillConfig
) -> torch.Tensor:
    """The loss of `config.method`, summed over the batch, of logits [N, K].

    `labels` are int64 [N], or the share of each class in an item, float [N, K], which dkd refuses by UserError: it
    asks how likely the teacher finds the one label. Where an item is UNLABELLED, the class that the teacher finds most
    likely stands for its label in dkd, as in Pseudo-Label (Lee 2013, ICML workshop on representation learning).
    """
    if config.method == "logits-mse":
        return logits_mse(student, teacher)
    if config.method == "dist":
        return correlated(student, teacher, config.temperature, config.inter_weight, config.intra_weight)
    if config.method == "dkd":
        if labels.dim() == 2:
            raise UserError(
                "distill.method = 'dkd' needs one label for each item, but fit.augment mixes items",
                "leave out what mixes them, or take method = 'soft-targets'",
            )
        labels = torch.where(labels == UNLABELLED, teacher.argmax(dim=1), labels)
        return decoupled(student, teacher, labels, config.temperature, config.target_weight, config.rest_weight)
    return soft_targets(student, teacher, config.temperature)
