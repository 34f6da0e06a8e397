"""The normalisation of images as a kernel: the one place for one in a network without transformer layers."""

from __future__ import annotations

import torch
from torch import nn

from kernels.normalise import normalise
from kernels.sites import KINDS, Kind
from train.front import Normalise


class FusedNormalise:
    """uint8 [N, H, W, C] -> [N, C, H, W], of the dtype to which autocast brings it before a convolution."""

    scale: torch.Tensor
    shift: torch.Tensor

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        kind = images.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        return (normalise(images, self.scale.flatten(), self.shift.flatten(), dtype),)


def _is_normalise(module: nn.Module) -> bool:
    return type(module) is Normalise


ALL_KINDS = (Kind("normalise", FusedNormalise, _is_normalise, lambda module: None), *KINDS)
