"""Can a network be trained on one item at a time? Batch norm cannot always."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from serve.errors import UserError
from train.classifier import Classifier
from train.image_growth import small_example


def check_lone_items(classifier: Classifier, scale: float = 1.0) -> None:
    """Raise UserError where a batch of one leaves batch norm a single value a channel, as on maps of 1 x 1.

    `scale` is that of the smallest images, as a share of the full size.

    One value has no deviation; torch says so only once training runs. Found on the shapes that an example meets.
    """
    if any(values == 1 for values in _values_a_channel(classifier, scale)):
        raise UserError(
            f"fit.batch_size = 1 cannot train '{classifier.spec.model}': its batch norm meets maps of 1 x 1, "
            "and one item has no deviation there",
            "set fit.batch_size to 2 or more (fit.accumulation does not help here), or take a larger image_size",
        )


@torch.no_grad()
def _values_a_channel(classifier: Classifier, scale: float) -> list[int]:
    """How many values of each channel every batch norm sees of one item [1, C, ...]."""
    seen: list[int] = []

    def note(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.append(arguments[0].numel() // arguments[0].shape[1])

    norms = [module for module in classifier.modules() if isinstance(module, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    try:
        if norms:
            example = classifier.example(1) if scale == 1.0 else small_example(classifier, scale)
            classifier.eval()(example.to(next(classifier.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return seen
