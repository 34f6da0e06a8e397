"""Losses on the answers of teacher and student, each a sum over the batch (see `train.losses`). N items, K classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def soft_targets(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 * sum of KL(teacher || student) at temperature T over logits [N, K] (Hinton et al. 2015, arXiv 1503.02531).

    T^2 keeps the size of the gradient as T changes (section 2 there), so that alpha means the same at every T. A class
    that the teacher rules out, by a logit of -inf, adds nothing.
    """
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * divergence(log_student, log_teacher)


def divergence(log_student: torch.Tensor, log_teacher: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student), summed over log-probabilities [N, K]; 0 log 0 is 0, where torch's kl_div makes it NaN.

    NaN stays NaN. On a CPU, where to look costs nothing, torch's is taken if it can be, which is up to a third faster;
    else it is computed as the reference of `kernels.distill_loss` does.
    """
    if log_teacher.device.type == "cpu":
        found = F.kl_div(log_student, log_teacher, log_target=True, reduction="sum")
        if not found.isnan():
            return found
    share = log_teacher.exp()
    return torch.where(share == 0, 0, share * (log_teacher - log_student)).sum()


def logits_mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Sum over the items of the mean squared difference of logits [N, K]: regression on what the softmax hides

    (Ba & Caruana 2014, arXiv 1312.6184; Kim et al. 2021, arXiv 2105.08919). The mean over the classes, where
    they sum, makes it twice the limit of `soft_targets` at high T for centred logits, however many classes there are.
    """
    return (student - teacher).square().mean(dim=1).sum()
