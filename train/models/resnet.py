"""Residual networks for small images: ResNet-(6n+2) (He et al. 2016, section 4.2) and wide ResNets

(Zagoruyko & Komodakis 2016, pre-activation, depth 6n+4). Shortcuts that change shape are 1x1 convolutions.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from serve.errors import UserError


class ResNetOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(default=16, ge=1)  # channels of the first stage
    dropout: float = Field(default=0.0, ge=0, lt=1)  # before the last layer
    # what the last layer reads, where that is not as wide as the last stage: a 1x1 convolution leads there
    features: int | None = Field(default=None, ge=1)


def resnet(depth: int, shape: tuple[int, int, int], classes: int, options: ResNetOptions) -> nn.Module:
    """ResNet-8, 20, 32, 44, 56, 110: three stages of n blocks, depth = 6n + 2."""
    if depth < 8 or (depth - 2) % 6:
        raise UserError(f"there is no resnet{depth} for small images: the depth is 6n + 2", "take 8, 20, 32, 44 or 56")
    return ResNet(PostActivationBlock, (depth - 2) // 6, 1, shape, classes, options)


def wide_resnet(
    depth: int, factor: int, shape: tuple[int, int, int], classes: int, options: ResNetOptions
) -> nn.Module:
    """WRN-depth-factor: three stages of n pre-activation blocks, `factor` times wider, depth = 6n + 4."""
    if depth < 10 or (depth - 4) % 6 or factor < 1:
        raise UserError(
            f"there is no wrn-{depth}-{factor}: the depth is 6n + 4", "take wrn-10-2, wrn-16-4 or wrn-28-10"
        )
    return ResNet(PreActivationBlock, (depth - 4) // 6, factor, shape, classes, options)


class PostActivationBlock(nn.Module):
    """x + (convolution, norm, ReLU, convolution, norm), then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(inputs, outputs, stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            _conv(outputs, outputs),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x_nchw) + self.shortcut(x_nchw))


class PreActivationBlock(nn.Module):
    """x + (norm, ReLU, convolution, norm, ReLU, convolution); a shortcut that changes shape starts after the ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.body = nn.Sequential(
            _conv(inputs, outputs, stride), nn.BatchNorm2d(outputs), nn.ReLU(), _conv(outputs, outputs)
        )
        changes = inputs != outputs or stride != 1
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        entered = self.enter(x_nchw)
        kept = x_nchw if self.shortcut is None else self.shortcut(entered)
        result: torch.Tensor = kept + self.body(entered)
        return result


class ResNet(nn.Module):
    """3x3 stem, three stages (the second and third halve the image and double the channels), average, linear."""

    def __init__(
        self,
        block: type[PostActivationBlock] | type[PreActivationBlock],
        blocks: int,
        factor: int,
        shape: tuple[int, int, int],
        classes: int,
        options: ResNetOptions,
    ) -> None:
        super().__init__()
        pre, width = block is PreActivationBlock, options.width
        self.stem = (
            _conv(shape[2], width) if pre else nn.Sequential(_conv(shape[2], width), nn.BatchNorm2d(width), nn.ReLU())
        )
        stages: list[nn.Module] = []
        inputs = width
        for stage in range(3):
            outputs = width * factor * 2**stage
            for position in range(blocks):
                stages.append(block(inputs, outputs, stride=2 if stage and position == 0 else 1))
                inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.leave = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU()) if pre else nn.Identity()
        features = options.features or inputs
        self.project = _projection(inputs, features) if options.features else nn.Identity()
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(options.dropout), nn.Linear(features, classes)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.project(self.leave(self.stages(self.stem(pixels)))))
        return logits


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def _projection(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
