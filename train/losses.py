"""Losses on labels, each a sum over the batch: who calls them divides by the number of items in the whole update.

Dividing here by the micro-batch would make the update depend on how accumulation splits it (trl#6006).
N items, K classes. What a teacher adds is in `train.distill`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Sum of -log p(label) over logits [N, K] and labels int64 [N], or the share of each class in an item [N, K]."""
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="sum")
