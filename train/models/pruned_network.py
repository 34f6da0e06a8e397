"""A pruned network as its spec says: built whole, then made smaller. Needs nothing of what pruned it.

The record is general: the residual blocks that are gone, and the shape of every parameter and buffer that is smaller
than in the whole network. How wide a convolution, linear layer or norm is follows from its weights.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from serve.errors import UserError
from train.draft import Pruned


def record_of(network: nn.Module, whole: nn.Module, removed: tuple[str, ...]) -> Pruned:
    """What `network` lacks of `whole`, which has the same names; `removed` are blocks that it has no more."""
    now, before = network.state_dict(), whole.state_dict()
    return Pruned(
        removed=removed,
        shapes={name: tuple(value.shape) for name, value in now.items() if value.shape != before[name].shape},
    )


def shrink(whole: nn.Module, pruned: Pruned, name: str) -> None:
    """Make a network that was built whole as small as `pruned` says; its weights are yet to be loaded.

    Raises UserError for a record that is none of this network's.
    """
    remove_blocks(whole, pruned.removed, name)
    owners: dict[str, nn.Module] = {}
    for tensor, shape in pruned.shapes.items():
        place, _, own = tensor.rpartition(".")
        owner = _module(whole, place, name)
        old = getattr(owner, own, None)
        if not isinstance(old, torch.Tensor) or not _fits(shape, old.shape):
            there = f"a shape of {list(old.shape)}" if isinstance(old, torch.Tensor) else "no such weights"
            raise _unfit(name, f"'{tensor}' is to have the shape {list(shape)}, and the network has {there}")
        smaller = old.detach()[tuple(slice(size) for size in shape)].clone()
        setattr(owner, own, nn.Parameter(smaller) if isinstance(old, nn.Parameter) else smaller)
        owners[place] = owner
    for place, owner in owners.items():
        _count_again(owner, place, name)


def remove_blocks(network: nn.Module, blocks: tuple[str, ...], name: str) -> None:
    """Put an identity in the place of each of these blocks. Raises UserError where there is no such block."""
    for block in blocks:
        _module(network, block, name)
        network.set_submodule(block, nn.Identity())


def _module(network: nn.Module, place: str, name: str) -> nn.Module:
    try:
        return network.get_submodule(place)
    except AttributeError:
        raise _unfit(name, f"there is no '{place}' in it") from None


def _fits(shape: tuple[int, ...], whole: torch.Size) -> bool:
    return len(shape) == len(whole) and all(0 < size <= most for size, most in zip(shape, whole, strict=True))


def _count_again(owner: nn.Module, place: str, name: str) -> None:
    """Set the numbers that a module keeps of its own widths, by its weights."""
    if isinstance(owner, _ConvNd):
        outputs, inputs = owner.weight.shape[:2]
        if owner.groups == owner.in_channels > 1:  # depthwise: every input is a group
            owner.groups = outputs // (owner.out_channels // owner.in_channels)
        if outputs % owner.groups:
            raise _unfit(name, f"the {outputs} channels of '{place}' are not {owner.groups} equal groups")
        owner.out_channels, owner.in_channels = outputs, inputs * owner.groups
    elif isinstance(owner, nn.Linear):
        owner.out_features, owner.in_features = owner.weight.shape
    elif isinstance(owner, _BatchNorm):
        owner.num_features = len(owner.weight) if owner.weight is not None else len(owner.running_mean)
    elif isinstance(owner, nn.LayerNorm):
        owner.normalized_shape = tuple(owner.weight.shape)
    elif isinstance(owner, nn.GroupNorm):
        owner.num_channels = len(owner.weight)


def _unfit(name: str, problem: str) -> UserError:
    return UserError(
        f"the record of what was pruned does not fit '{name}': {problem}",
        "spec.json was changed, or written with another version of the library that defines the network",
    )
