"""Where a network keeps its layers: the numbered modules that hold most of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

NUMBERED = re.compile(r"(.+?)\.(\d+)\..+")  # the modules' common prefix, and the number of one


def layer_stack(state: Mapping[str, torch.Tensor]) -> str:
    """The prefix of the numbered modules that hold most of the weights, such as `model.bert.encoder.layer`."""
    sizes: dict[str, int] = {}
    for name, tensor in state.items():
        if found := NUMBERED.fullmatch(name):
            sizes[found[1]] = sizes.get(found[1], 0) + tensor.numel()
    return max(sizes, key=lambda prefix: sizes[prefix])
