"""Decoupled knowledge distillation (Zhao et al. 2022, arXiv 2203.08679). N items, K classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from train.distill.logits import divergence


def decoupled(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    target_weight: float,
    rest_weight: float,
) -> torch.Tensor:
    """T^2 * sum of (target_weight * TCKD + rest_weight * NCKD) over logits [N, K] and labels int64 [N].

    TCKD is KL(teacher || student) of the label's probability against all the rest, NCKD the same of how the rest is
    spread over the other classes. With two classes there is nothing to spread, and NCKD is 0.
    """
    own = F.one_hot(labels, student.shape[1]).bool()
    mine, theirs = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    target = divergence(_label_or_not(mine, own), _label_or_not(theirs, own))
    rest = divergence(_spread(student / temperature, own), _spread(teacher / temperature, own))
    return temperature**2 * (target_weight * target + rest_weight * rest)


def _label_or_not(log_p: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """log [N, 2]: the probability of the label, and of all other classes together."""
    others = log_p.masked_fill(own, -torch.inf).logsumexp(dim=1)
    return torch.stack([log_p[own], others], dim=1)


def _spread(logits: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """log [N, K - 1]: the probabilities of the other classes among themselves."""
    return F.log_softmax(logits[~own].view(len(logits), -1), dim=1)
