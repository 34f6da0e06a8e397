"""Channels that depend on each other, found and cut by torch-pruning (Fang et al. 2023, DepGraph, arXiv 2301.12900).

What one layer gives and another takes, and all that a shortcut adds up, can only be cut together: such channels are a
group. This is all of torch-pruning that is used; what comes out is a record of shapes, not its objects.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import nn
from torch.nn.modules.conv import _ConvNd

Scores = Callable[[Any], torch.Tensor | None]  # of a group of torch-pruning: float32 [its channels]; None: it has none


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are cut together, by the layer that gives them."""

    layer: str  # a convolution or linear layer
    width: int  # its channels now
    divisor: int  # grouped convolutions and group norms: the width stays a multiple of it
    found: Any  # torch-pruning's group


@contextmanager
def copied(network: nn.Module) -> Iterator[nn.Module]:
    """A copy of `network` for torch-pruning to work on: in eval mode, every parameter with a gradient."""
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.filterwarnings("ignore", module="torch_pruning")
        yield copy.deepcopy(network).eval().requires_grad_(True)


def find_groups(network: nn.Module, example: torch.Tensor, outputs: Sequence[str]) -> tuple[Any, list[ChannelGroup]]:
    """torch-pruning's graph of `network`, and all groups but those of the layers `outputs`, which score the classes.

    `example` is a batch that the network takes: float32 [1, C, H, W].
    """
    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=example)
    names = {module: name for name, module in network.named_modules()}
    groups = []
    kept = [network.get_submodule(output) for output in outputs]
    for found in graph.get_all_groups(ignored_layers=kept, root_module_types=[_ConvNd, nn.Linear]):
        root = found[0].dep.target.module
        groups.append(ChannelGroup(names[root], int(graph.get_out_channels(root)), _divisor(found), found))
    return graph, groups


def cut(graph: Any, group: ChannelGroup, width: int, scores: torch.Tensor) -> None:
    """Leave a group its `width` channels of the highest scores; of grouped convolutions as many in each part.

    Of equal scores the first stay.
    """
    parts = scores.view(group.divisor, -1)  # [parts, channels of each]
    ranked = torch.argsort(parts.mean(dim=0), descending=True, stable=True)
    gone = ranked[width // group.divisor :]
    size = parts.shape[1]
    rows = sorted(int(row) + part * size for part in range(group.divisor) for row in gone)
    root = group.found[0].dep
    graph.get_pruning_group(root.target.module, root.handler, rows).prune()


def width_for(share: float, whole: int, round_to: int, divisor: int = 1) -> int:
    """`share` of a `whole` width, to the nearest multiple of `round_to`, up where two are as near; at least one of

    them, at most all.
    """
    step = math.lcm(round_to, divisor)
    return min(whole, max(step, math.floor(share * whole / step + 0.5) * step))


def widths_of(groups: Sequence[ChannelGroup], whole: Mapping[str, int], share: float, round_to: int) -> list[int]:
    """The width of each group where `share` of what is `whole` by layer is left; never more than it has now."""
    return [min(group.width, width_for(share, whole[group.layer], round_to, group.divisor)) for group in groups]


def layer_widths(network: nn.Module) -> dict[str, int]:
    """How many channels each convolution and linear layer gives."""
    layers = {name: module for name, module in network.named_modules() if isinstance(module, _ConvNd | nn.Linear)}
    return {name: int(layer.weight.shape[0]) for name, layer in layers.items()}


def _divisor(found: Any) -> int:
    divisors = [1]
    for dependency, _ in found:
        module = dependency.target.module
        if isinstance(module, _ConvNd) and not module.groups == module.out_channels == module.in_channels:
            divisors.append(module.groups)
        if isinstance(module, nn.GroupNorm):
            divisors.append(module.num_groups)
    return math.lcm(*divisors)
