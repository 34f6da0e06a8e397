"""Losses on what happens inside transformers, each a sum over the items of a batch (see `train.losses`).

N items, L tokens of the longest, H heads, D width; mask bool [N, L], False where a text was filled up. Each item's
loss is a mean over its own tokens, so that it does not depend on how far its batch was padded.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kernels.hidden_loss import hidden_loss
from train.fused import either

RELATION_HEADS = 12  # into which MiniLMv2 cuts vectors, whatever heads a model has; fewer where the width asks for it
_FAR_BELOW = -1e4


def hidden_states(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of hidden states [N, L, D] (TinyBERT: Jiao et al. 2020, arXiv 1909.10351, eq. 8)."""

    def plain(s: torch.Tensor, t: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        return _over_tokens((s - t).square().mean(dim=2), kept)

    def fused(s: torch.Tensor, t: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        return hidden_loss(s, t, kept).loss

    return either(f"hidden states of {student.shape[2]}", "hidden_loss", plain, fused, student, teacher, mask)


def attention(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of attention scores [N, H, L, L] before the softmax (TinyBERT, eq. 7)."""
    pairs = (mask[:, None, :] & mask[:, :, None]).float()
    difference = (student - teacher).square().mean(dim=1) * pairs
    return (difference.sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)).sum()


def relations(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) of the self-relations of vectors [N, L, D], queries, keys or values

    (MiniLMv2: Wang et al. 2021, arXiv 2012.15828, section 3.1). Widths may differ: both are cut into the same number
    of relation heads, whose scaled dot products [L, L] are compared, and only these.
    """
    heads = relation_heads(student.shape[2], teacher.shape[2])
    far = (~mask)[:, None, None, :] * _FAR_BELOW
    ours = F.log_softmax(_relation(student, heads) + far, dim=3)
    theirs = F.log_softmax(_relation(teacher, heads) + far, dim=3)
    divergence = F.kl_div(ours, theirs, log_target=True, reduction="none").sum(dim=3).mean(dim=1)
    return _over_tokens(divergence, mask)


def scores(query: torch.Tensor, key: torch.Tensor, heads: int) -> torch.Tensor:
    """Attention scores [N, H, L, L] of queries and keys [N, L, D]."""
    query, key = _split(query, heads), _split(key, heads)
    return query @ key.transpose(2, 3) / query.shape[3] ** 0.5


def relation_heads(*widths: int) -> int:
    """The most relation heads, 12 at most, into which all these widths can be cut."""
    return next(heads for heads in range(RELATION_HEADS, 0, -1) if all(width % heads == 0 for width in widths))


def _relation(vectors: torch.Tensor, heads: int) -> torch.Tensor:
    return scores(vectors, vectors, heads)


def _split(vectors: torch.Tensor, heads: int) -> torch.Tensor:
    """[N, L, D] -> [N, H, L, D / H]."""
    return vectors.unflatten(2, (heads, -1)).transpose(1, 2)


def _over_tokens(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of values [N, L] over each item's tokens, summed over the items."""
    kept = mask.float()
    return ((values * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)).sum()
