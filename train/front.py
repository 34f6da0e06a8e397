"""The first layer of every classifier: from what a preparer gives to what a network takes.

It is a part of the module, and so of every graph exported from it: a server cannot get it wrong.
"""

from __future__ import annotations

import torch
from torch import nn

from train.draft import Normalisation


class Normalise(nn.Module):
    """uint8 [N, H, W, C] -> float32 [N, C, H, W], normalised per channel."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, normalisation: Normalisation) -> None:
        super().__init__()
        mean, std = torch.tensor(normalisation.mean), torch.tensor(normalisation.std)
        # (x / 255 - mean) / std as one multiplication and one addition
        self.register_buffer("scale", (1 / (255 * std)).view(1, -1, 1, 1))
        self.register_buffer("shift", (-mean / std).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        return (images.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.shift,)


class Mask(nn.Module):
    """Ids int64 [N, L] -> the ids, and a mask int64 [N, L] that is 0 where a text was filled up."""

    def __init__(self, pad_id: int) -> None:
        super().__init__()
        self.pad_id = pad_id

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return ids, (ids != self.pad_id).to(torch.int64)
