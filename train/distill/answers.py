"""Which loss on the answers a recipe's `method` means, and that together with the one on the labels.

Soft targets and cross-entropy are one pass over the logits where its kernel pays (`train.fused`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from kernels.distill_loss import distill_loss
from serve.errors import UserError
from train.distill.config import DistillConfig
from train.distill.correlated import correlated
from train.distill.decoupled import decoupled
from train.distill.logits import logits_mse, soft_targets
from train.fused import either
from train.losses import LabelLoss
from train.sources.base import UNLABELLED

OnLabels = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # logits [N, K] and labels to a sum over the batch


def answers_and_labels(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, config: DistillConfig, on_labels: OnLabels
) -> torch.Tensor:
    """alpha * answers + (1 - alpha) * labels, each summed over the batch, of logits [N, K]."""
    if config.method != "soft-targets":
        soft = config.alpha * answers_loss(student, teacher, labels, config)
        return _with_labels(soft, student, labels, config, on_labels)
    smoothing = on_labels.smoothing if isinstance(on_labels, LabelLoss) and labels.dim() == 1 else None
    if smoothing is None:  # another loss on labels than cross-entropy: the soft targets alone have a kernel
        soft = _soft_targets(student, teacher, config)
        return _with_labels(soft, student, labels, config, on_labels)
    return _soft_targets_and_labels(student, teacher, labels, config, on_labels, smoothing)


def _soft_targets(student: torch.Tensor, teacher: torch.Tensor, config: DistillConfig) -> torch.Tensor:
    """alpha * soft targets."""

    def plain(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return config.alpha * soft_targets(s, t, config.temperature)

    def fused(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return distill_loss(s, t, None, config.temperature, config.alpha, 0.0).loss

    return either("soft targets", "distill_loss", plain, fused, student, teacher)


def _soft_targets_and_labels(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    config: DistillConfig,
    on_labels: OnLabels,
    smoothing: float,
) -> torch.Tensor:
    """alpha * soft targets + (1 - alpha) * cross-entropy."""

    def plain(s: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return _with_labels(config.alpha * soft_targets(s, t, config.temperature), s, y, config, on_labels)

    def fused(s: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        shares = config.alpha, 1 - config.alpha
        return distill_loss(s, t, y, config.temperature, *shares, smoothing, UNLABELLED).loss

    return either("soft targets and labels", "distill_loss", plain, fused, student, teacher, labels)


def _with_labels(
    soft: torch.Tensor, student: torch.Tensor, labels: torch.Tensor, config: DistillConfig, on_labels: OnLabels
) -> torch.Tensor:
    return soft if config.alpha == 1.0 else soft + (1 - config.alpha) * on_labels(student, labels)


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
