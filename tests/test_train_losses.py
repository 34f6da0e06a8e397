from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from train.losses import cross_entropy

GENERATOR = np.random.default_rng(0)
LOGITS, LABELS = GENERATOR.normal(0, 3, (9, 5)), GENERATOR.integers(0, 5, 9)


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(LOGITS, requires_grad=True), torch.tensor(LABELS)


def test_label_smoothing_shares_the_label_out_evenly() -> None:
    logits, labels = tensors()
    log_p = log_softmax(LOGITS, axis=1)
    expected = -(0.8 * log_p[np.arange(9), LABELS] + 0.2 * log_p.mean(axis=1)).sum()
    assert cross_entropy(logits, labels, 0.2).item() == pytest.approx(expected)


def test_losses_of_the_parts_of_a_batch_add_up_to_that_of_the_whole() -> None:
    logits, labels = tensors()
    parts = [cross_entropy(logits[rows], labels[rows], 0.1) for rows in (slice(2), slice(2, 9))]
    assert sum(part.item() for part in parts) == pytest.approx(cross_entropy(logits, labels, 0.1).item())
