"""Residual blocks that a network can do without: what goes in also comes out, so an identity can stand in their place.

Removing a block shortens the network, which saves time in proportion, where narrower layers often save less: a
runtime computes channels in blocks of 8 or 16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.convnext import CNBlock
from torchvision.models.efficientnet import FusedMBConv, MBConv
from torchvision.models.mnasnet import _InvertedResidual as MNASNetBlock
from torchvision.models.mobilenetv2 import InvertedResidual as MobileNetV2Block
from torchvision.models.mobilenetv3 import InvertedResidual as MobileNetV3Block
from torchvision.models.regnet import ResBottleneckBlock
from torchvision.models.resnet import BasicBlock, Bottleneck

from train.inputs import Inputs
from train.models.resnet import PostActivationBlock, PreActivationBlock

if TYPE_CHECKING:
    from train.classifier import Classifier

_BATCH = 64
# By kind of block: does it add what it was given to what it computes, without changing its shape?
_KEEPS: dict[type[nn.Module], Callable[[Any], bool]] = {
    PostActivationBlock: lambda block: isinstance(block.shortcut, nn.Identity),
    PreActivationBlock: lambda block: block.shortcut is None,
    BasicBlock: lambda block: block.downsample is None,
    Bottleneck: lambda block: block.downsample is None,
    ResBottleneckBlock: lambda block: block.proj is None,
    MobileNetV2Block: lambda block: block.use_res_connect,
    MobileNetV3Block: lambda block: block.use_res_connect,
    MBConv: lambda block: block.use_res_connect,
    FusedMBConv: lambda block: block.use_res_connect,
    MNASNetBlock: lambda block: block.apply_residual,
    CNBlock: lambda block: True,
}


# The same of transformers' convolutional networks, by the name of the kind, since to import them all takes long.
_KEEPS_BY_NAME: dict[str, Callable[[Any], bool]] = {
    "ResNetBasicLayer": lambda block: isinstance(block.shortcut, nn.Identity),
    "ResNetBottleNeckLayer": lambda block: isinstance(block.shortcut, nn.Identity),
    "ConvNextLayer": lambda block: True,
    "MobileNetV2InvertedResidual": lambda block: block.use_residual,
}


def residual_blocks(network: nn.Module) -> list[str]:
    """The names of all residual blocks, in order."""
    return [name for name, module in network.named_modules() if _rule_of(module) is not None]


def removable_blocks(network: nn.Module) -> list[str]:
    """The names of those in whose place an identity can stand: all but the ones that change the shape."""
    rules = {name: _rule_of(module) for name, module in network.named_modules()}
    return [name for name, rule in rules.items() if rule is not None and rule(network.get_submodule(name))]


def _rule_of(module: nn.Module) -> Callable[[Any], bool] | None:
    if type(module).__module__.startswith("transformers."):
        return _KEEPS_BY_NAME.get(type(module).__name__)
    return _KEEPS.get(type(module))


def least_missed(classifier: Classifier, count: int, inputs: Inputs) -> tuple[str, ...]:
    """The names of `count` blocks without which the loss on `inputs` rises least, found one after the other."""
    removed: list[str] = []
    for _ in range(count):
        losses = {
            block: loss_without(classifier, [*removed, block], inputs)
            for block in removable_blocks(classifier.network)
            if block not in removed
        }
        removed.append(min(losses, key=lambda block: losses[block]))
    return tuple(sorted(removed, key=residual_blocks(classifier.network).index))


@torch.no_grad()
def loss_without(classifier: Classifier, blocks: Sequence[str], inputs: Inputs) -> float:
    """The mean cross-entropy on `inputs` where these blocks hand on what they are given; nothing is changed."""
    network, training = classifier.network, classifier.training
    device, found = next(classifier.parameters()).device, [network.get_submodule(block) for block in blocks]
    total = 0.0
    for block in found:
        block.__dict__["forward"] = _hand_on
    try:
        classifier.eval()
        for at in range(0, len(inputs), _BATCH):
            rows = torch.arange(at, min(at + _BATCH, len(inputs))).numpy()
            logits = classifier(torch.from_numpy(inputs.gather(rows)).to(device)).float()
            labels = torch.from_numpy(inputs.labels[rows]).to(device)
            total += F.cross_entropy(logits, labels, reduction="sum").item()
    finally:
        for block in found:
            del block.__dict__["forward"]
        classifier.train(training)
    return total / len(inputs)


def _hand_on(maps: torch.Tensor) -> torch.Tensor:
    """In the place of a block's own `forward`."""
    return maps
