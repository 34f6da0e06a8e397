"""A small convolutional network: convolutions with pooling, then a fully connected layer sized from the data."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn


class SmallCNNOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: int = Field(default=64, ge=1)  # width of the fully connected layer
    dropout: float = Field(default=0.0, ge=0, lt=1)  # before the last layer


class SmallCNN(nn.Module):
    """One [3x3 convolution, batch norm, ReLU, 2x2 max pooling] block for each of `channels`, then two linear layers.

    A block pools only while both sides are at least 4 pixels, so that any image size fits any depth.
    """

    def __init__(
        self, shape: tuple[int, int, int], channels: list[int], classes: int, options: SmallCNNOptions
    ) -> None:
        super().__init__()
        height, width, inputs = shape
        blocks: list[nn.Module] = []
        for outputs in channels:
            blocks += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            if min(height, width) >= 4:
                blocks.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            inputs = outputs
        self.features = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(inputs * height * width, options.hidden),
            nn.ReLU(),
            nn.Dropout(options.dropout),
            nn.Linear(options.hidden, classes),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(pixels))
        return logits
