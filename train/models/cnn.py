"""A small convolutional network: convolutions with pooling, then a fully connected layer sized from the data."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn


class SmallCNNOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: int = Field(default=64, ge=0)  # width of the fully connected layer before the last; 0: none
    dropout: float = Field(default=0.0, ge=0, lt=1)  # before the last layer
    # How a block halves the image: all pixels are computed and the largest of four kept, or every other one is computed
    # (arXiv 1412.6806), which takes a quarter of the multiplications.
    halve: Literal["pool", "stride"] = "pool"


class SmallCNN(nn.Module):
    """One [3x3 convolution, batch norm, ReLU, 2x2 max pooling] block for each of `channels`; one or two linear layers.

    A block halves the image only while both sides are at least 4 pixels, so that any image size fits any depth. An odd
    side is rounded down by pooling, and up by a stride.
    """

    def __init__(
        self, shape: tuple[int, int, int], channels: list[int], classes: int, options: SmallCNNOptions
    ) -> None:
        super().__init__()
        height, width, inputs = shape
        blocks: list[nn.Module] = []
        for outputs in channels:
            halved = min(height, width) >= 4
            stride = 2 if halved and options.halve == "stride" else 1
            convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
            blocks += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
            if halved and options.halve == "pool":
                blocks.append(nn.MaxPool2d(2))
            if halved:
                height, width = ((side + stride - 1) // 2 for side in (height, width))
            inputs = outputs
        self.features = nn.Sequential(*blocks)
        width = inputs * height * width
        head: list[nn.Module] = [nn.Flatten()]
        if options.hidden:
            head += [nn.Linear(width, options.hidden), nn.ReLU()]
        head += [nn.Dropout(options.dropout), nn.Linear(options.hidden or width, classes)]
        self.head = nn.Sequential(*head)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(pixels))
        return logits
