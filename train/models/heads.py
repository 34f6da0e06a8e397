"""The classification head of a pretrained model: is it already one for the data's labels, and in which order?

K labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import nn
from transformers import PretrainedConfig

_PLACEHOLDER = re.compile(r"label_(\d+)")  # what transformers calls a label that was never given a name


def own_labels(config: PretrainedConfig) -> list[str]:
    """The names of the labels that the model was trained for, in the order of its scores."""
    named: dict[int, str] = {int(at): str(label) for at, label in (config.id2label or {}).items()}
    return [named[at] for at in sorted(named)]


def matching_rows(config: PretrainedConfig, labels: Sequence[str]) -> list[int] | None:
    """For each of our labels the row of the model's own head that scores it; None unless exactly these are its labels.

    Names are compared without regard to case, and the placeholder LABEL_1 is the data's label 1.
    """
    own = [_plain(label) for label in own_labels(config)]
    wanted = [_plain(label) for label in labels]
    if sorted(own) != sorted(wanted) or len(set(wanted)) != len(wanted):
        return None
    return [own.index(label) for label in wanted]


def head_of(model: nn.Module) -> nn.Linear:
    """The last linear layer: in every `...ForSequenceClassification` and `...ForImageClassification` it scores."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


@torch.no_grad()
def take_rows(head: nn.Linear, rows: Sequence[int]) -> None:
    """Put a head's rows, weight [K, D] and bias [K], into another order."""
    order = torch.tensor(rows)
    head.weight.copy_(head.weight[order].clone())
    if head.bias is not None:
        head.bias.copy_(head.bias[order].clone())


@torch.no_grad()
def forget(head: nn.Linear, deviation: float = 0.02) -> None:
    """Give a head new weights, from torch's global generator, as BERT does (Devlin et al. 2018, arXiv 1810.04805)."""
    head.weight.normal_(std=deviation)
    if head.bias is not None:
        head.bias.zero_()


def rename(config: PretrainedConfig, labels: Sequence[str]) -> None:
    """Make the configuration say our labels, in our order."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: at for at, label in enumerate(labels)}


def _plain(label: str) -> str:
    lower = label.strip().casefold()
    placeholder = _PLACEHOLDER.fullmatch(lower)
    return placeholder[1] if placeholder else lower
