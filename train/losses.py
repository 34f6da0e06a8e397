"""Losses on labels, each a sum over the batch: who calls them divides by the number of items in the whole update.

Dividing here by the micro-batch would make the update depend on how accumulation splits it (trl#6006). For the same
reason a class's weight multiplies its items' losses and nothing is divided by the sum of the weights.
N items, K classes. Labels are int64 [N], or the share of each class in an item, float [N, K]; class weights float [K].
Items without a label, UNLABELLED or a row of zeros, add nothing, and count among the items all the same.
What a teacher adds is in `train.distill`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from serve.errors import UserError, did_you_mean
from train.fit_config import BALANCED, FitConfig
from train.sources.base import UNLABELLED


def cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0, class_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum of -log p(label) over logits [N, K]."""
    return F.cross_entropy(logits, labels, class_weights, label_smoothing=label_smoothing, reduction="sum")


def focal(
    logits: torch.Tensor, labels: torch.Tensor, gamma: float, class_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum of -(1 - p)^gamma log p of the label: less of what is known already (Lin et al. 2017, arXiv 1708.02002)."""
    log_p = F.log_softmax(logits, dim=1)
    share = _weighted(_shares(labels, logits), class_weights)
    unknown = (-torch.expm1(log_p)).clamp(min=1e-12)  # 1 - p; of 0 ** gamma there is no gradient for gamma below 1
    return -(share * unknown**gamma * log_p).sum()


def squared_error(
    logits: torch.Tensor, labels: torch.Tensor, class_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum over the items of the mean over the classes of (logit - share of the class)^2.

    On the raw logits, without softmax, as Hui & Belkin 2021 (arXiv 2006.07322) have it. Such logits lie about 0 and 1:
    the class of the highest is the answer as ever, but the softmax of them, which is served, is far from a probability.
    """
    shares = _shares(labels, logits)
    errors = ((logits - shares) ** 2).mean(dim=1)
    return (errors * _weighted(shares, class_weights).sum(dim=1)).sum()


class LabelLoss:
    """The recipe's loss on labels: logits [N, K] and labels to a sum over the batch."""

    def __init__(self, config: FitConfig, labels: tuple[str, ...], train: np.ndarray) -> None:
        """`labels` are the names of the classes, `train` int64 [N] the training split's, to be balanced.

        Items without a label have UNLABELLED among them. Raises UserError where the recipe weighs a class that the
        data do not have.
        """
        self._config = config
        self._partly = bool((train == UNLABELLED).any()) or config.augment.cuts
        weights = class_weights(config.class_weights, labels, train[train != UNLABELLED])
        self._weights = None if weights is None else torch.from_numpy(weights)

    @property
    def smoothing(self) -> float | None:
        """The label smoothing of plain cross-entropy without weights of classes; None of every other loss."""
        plain = self._config.loss == "cross-entropy" and self._weights is None
        return self._config.label_smoothing if plain else None

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        config = self._config
        weights = None if self._weights is None else self._weights.to(logits.device)
        logits = logits.float()
        if self._partly:
            labelled = is_labelled(labels)
            logits, labels = logits[labelled], labels[labelled]
        if config.loss == "focal":
            return focal(logits, labels, config.focal_gamma, weights)
        if config.loss == "mse":
            return squared_error(logits, labels, weights)
        return cross_entropy(logits, labels, config.label_smoothing, weights)


def is_labelled(labels: torch.Tensor) -> torch.Tensor:
    """bool [N]: which items have a label, of labels int64 [N] or shares float [N, K]."""
    return labels.sum(dim=1) > 0 if labels.ndim == 2 else labels != UNLABELLED


def check_range(labels: np.ndarray, names: tuple[str, ...], split: str) -> None:
    """Raise UserError where a label int64 [N] of a `split` is none of `names`: a GPU's losses could not say which."""
    strange = np.flatnonzero((labels != UNLABELLED) & ((labels < 0) | (labels >= len(names))))
    if len(strange):
        raise UserError(
            f"{split} item {strange[0]} has the label {labels[strange[0]]}: expected 0 to {len(names) - 1}, one of the "
            f"{len(names)} labels of the classifier, or {UNLABELLED} for none",
            "labels count from 0 in the order of the classifier's own; is it the classifier for these data?",
        )


def class_weights(
    asked: str | Mapping[str, float] | None, labels: tuple[str, ...], train: np.ndarray
) -> np.ndarray | None:
    """The weight of each class, float32 [K]; None where all weigh the same.

    "balanced" is N / (K * items of the class), as in scikit-learn (King & Zeng 2001), so that the mean over the items
    is 1. A class that a table leaves out weighs 1. Raises UserError for a label that the data do not have.
    """
    if asked is None:
        return None
    if asked == BALANCED:
        counts = np.bincount(train, minlength=len(labels))
        return (len(train) / (len(labels) * np.maximum(counts, 1))).astype(np.float32)
    assert isinstance(asked, Mapping)
    for label in asked:
        if label not in labels:
            raise UserError(f"fit.class_weights: the data have no label '{label}'", did_you_mean(label, labels))
    return np.array([asked.get(label, 1.0) for label in labels], dtype=np.float32)


def _shares(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Labels as the share of each class, like `logits` [N, K]."""
    if labels.ndim == logits.ndim:
        return labels.to(logits.dtype)
    return F.one_hot(labels, logits.shape[1]).to(logits.dtype)


def _weighted(shares: torch.Tensor, class_weights: torch.Tensor | None) -> torch.Tensor:
    return shares if class_weights is None else shares * class_weights.to(shares.dtype)
