"""DIST: the student's answers shall be correlated with the teacher's, not equal (Huang et al. 2022, arXiv 2205.10536).

N items, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

_EPSILON = 1e-8


def correlated(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float, inter_weight: float, intra_weight: float
) -> torch.Tensor:
    """T^2 * (inter_weight * sum over the items + intra_weight * N * mean over the classes) of 1 - Pearson's r.

    Inter-class, r is taken over the K probabilities of each item, as softmax at temperature T gives them; with two
    classes it is 1 or -1, and has no gradient (`DistillConfig.check_classes`). Intra-class,
    it is taken over the batch for each class: it compares items, so N times it is a sum over the items only for a
    batch that is the whole update (`DistillConfig.check_accumulation`). A last batch that is smaller compares fewer;
    one of a single item has nothing to compare, and the intra-class part is a constant without a gradient.
    """
    mine, theirs = (F.softmax(logits / temperature, dim=1) for logits in (student, teacher))
    inter = _distance(mine, theirs).sum()
    intra = len(mine) * _distance(mine.T, theirs.T).mean()
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


def _distance(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """1 - Pearson's r of each row: [rows]. What does not vary is correlated with nothing: 1."""
    ours, theirs = (F.normalize(rows - rows.mean(dim=1, keepdim=True), dim=1, eps=_EPSILON) for rows in (ours, theirs))
    return 1 - (ours * theirs).sum(dim=1)
