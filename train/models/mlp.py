"""Multi-layer perceptron with ReLU; 1200x1200 and 800x800 are Hinton's MNIST nets (arXiv 1503.02531)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn


class MLPOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    dropout: float = Field(default=0.0, ge=0, lt=1)  # after each hidden layer
    input_dropout: float = Field(default=0.0, ge=0, lt=1)  # on the pixels (Srivastava et al. 2014 use 0.2)


class MLP(nn.Module):
    """[N, C, H, W] -> flatten -> widths -> [N, classes]."""

    def __init__(self, shape: tuple[int, int, int], widths: list[int], classes: int, options: MLPOptions) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(options.input_dropout)]
        for inputs, outputs in pairwise([math.prod(shape), *widths]):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(options.dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], classes))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(pixels)
        return logits
