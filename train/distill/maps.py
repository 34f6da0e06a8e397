"""Losses on the feature maps of convolutional networks, each a sum over the items of a batch (see `train.losses`).

N items, C channels, H x W positions. Maps of different sizes are averaged down to the smaller height and width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kernels.hidden_loss import hidden_loss
from train.fused import either


def hints(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of maps [N, C, H, W] (FitNets: Romero et al. 2015, arXiv 1412.6550, eq. 3).

    The paper halves it and sums over channels and positions; a mean lets the weight mean the same at every stage.
    """
    student, teacher = same_size(student, teacher)
    name = "hints of " + " x ".join(map(str, student.shape[1:]))
    return either(name, "hidden_loss", _hints, _fused_hints, student, teacher)


def _hints(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return (student - teacher).square().mean(dim=(1, 2, 3)).sum()


def _fused_hints(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Channels stand in the place of tokens, all of them."""
    return hidden_loss(student.flatten(2), teacher.flatten(2)).loss


def attention_maps(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Squared distance of the attention maps of [N, C, H, W] and [N, C', H, W]: between 0 and 2 for each item

    (Zagoruyko & Komodakis 2017, arXiv 1612.03928, eq. 2). A map is the sum of squares over the channels, as a vector of
    length 1 over the positions. The paper's formula takes the distance itself; its square has a gradient at 0 too.
    """
    student, teacher = same_size(student, teacher)
    return (_attention(student) - _attention(teacher)).square().sum()


def same_size(one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with the smaller height and the smaller width."""
    size = (min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3]))
    return _pooled(one, size), _pooled(other, size)


def _pooled(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return maps if maps.shape[2:] == size else F.adaptive_avg_pool2d(maps, size)


def _attention(maps: torch.Tensor) -> torch.Tensor:
    """Unit vectors [N, H * W]; of a map that is 0 everywhere, 0."""
    return F.normalize(maps.square().sum(dim=1).flatten(1), dim=1)
