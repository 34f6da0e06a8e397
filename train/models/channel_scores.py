"""How much a group of channels matters: the scores by which channels are kept, compared within their group alone.

"taylor": how much the loss would change without a channel's weights, to first order: |weight x gradient|, summed over
the weights of each layer of the group, and over batches of training items (Molchanov et al. 2019, arXiv 1906.10771,
by torch-pruning's GroupTaylorImportance).
"magnitude": the squared length of these weights (Li et al. 2017, arXiv 1608.08710, over a whole group as in DepGraph).
"bn-scale": |gamma| of the batch norms (network slimming, Liu et al. 2017, arXiv 1708.06519); where a group has none, as
between linear layers, magnitude.

C channels of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch_pruning import importance

from train.inputs import Inputs
from train.models.channels import ChannelGroup

Kind = Literal["taylor", "magnitude", "bn-scale"]
_BATCH = 32


def channel_scores(
    kind: Kind, groups: Sequence[ChannelGroup], front: nn.Module, network: nn.Module, inputs: Inputs | None
) -> list[torch.Tensor]:
    """The scores of each group's channels, float64 [C], in any scale: more matters more.

    `groups` are of `network`, which takes what `front` makes of the model inputs; "taylor" asks both about `inputs`.
    """
    if kind == "taylor":
        assert inputs is not None
        return _taylor(groups, front, network, inputs)
    magnitude = importance.GroupMagnitudeImportance(p=2)
    by_scale = importance.BNScaleImportance() if kind == "bn-scale" else magnitude
    return [_scored(by_scale(group.found), magnitude(group.found), group) for group in groups]


def _taylor(groups: Sequence[ChannelGroup], front: nn.Module, network: nn.Module, inputs: Inputs) -> list[torch.Tensor]:
    by_gradient = importance.GroupTaylorImportance(normalizer=None)
    device = next(network.parameters()).device
    totals = [torch.zeros(group.width, dtype=torch.float64, device=device) for group in groups]
    for at in range(0, len(inputs), _BATCH):
        rows = torch.arange(at, min(at + _BATCH, len(inputs))).numpy()
        network.zero_grad(set_to_none=False)
        with torch.enable_grad():
            logits = network(*front(torch.from_numpy(inputs.gather(rows)).to(device)))
            F.cross_entropy(logits.float(), torch.from_numpy(inputs.labels[rows]).to(device)).backward()
        for total, group in zip(totals, groups, strict=True):
            total += _scored(by_gradient(group.found), None, group).to(device)
    return [total.cpu() for total in totals]


def _scored(scores: torch.Tensor | None, others: torch.Tensor | None, group: ChannelGroup) -> torch.Tensor:
    found = others if scores is None else scores
    assert found is not None, f"a group without weights: {group.layer}"
    return found.detach().double()
