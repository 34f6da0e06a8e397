"""The optimizers of `fit.optimizer`, and which weights decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers.optimization import Adafactor

from train.fit_config import FitConfig

_OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    # fused: one pass over the weights, an eighth of the time for the embeddings of a text model
    "adamw": (torch.optim.AdamW, {"fused": True}),
    "adam": (torch.optim.Adam, {"fused": True}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adagrad": (torch.optim.Adagrad, {}),
    # at our learning rate and schedule, not at its own
    "adafactor": (Adafactor, {"scale_parameter": False, "relative_step": False}),
}


def new_optimizer(
    config: FitConfig, model: nn.Module, rates: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """The optimizer that `config` names, over the parameters of `model` that are trained.

    `rates` multiply the learning rate of the parameters that they name.
    """
    made, options = _OPTIMIZERS[config.optimizer]
    return made(_groups(config, model, rates or {}), **{"lr": config.learning_rate, **options})


def decays(name: str, parameter: torch.Tensor) -> bool:
    """Whether weight decay and `fit.l1` hold for it: not for biases and norms, which are vectors.

    The rule is timm's (`param_groups_weight_decay` in timm/optim/_param_groups.py); it finds norms of every kind.
    """
    return parameter.ndim > 1 and not name.endswith("bias")


def l1_norm(model: nn.Module) -> torch.Tensor:
    """The sum of |w| over the weights of `model` that decay and are trained: a scalar, 0 where there are none.

    Frozen ones have no gradient of it, but would make the loss that is shown larger by what nothing can change.
    """
    named = model.named_parameters()
    sums = [weight.abs().sum() for name, weight in named if weight.requires_grad and decays(name, weight)]
    return torch.stack(sums).sum() if sums else torch.zeros((), device=next(model.parameters()).device)


def _groups(config: FitConfig, model: nn.Module, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """One group for each rate, of what decays and of what does not."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((rates.get(name, 1.0), decays(name, parameter)), []).append(parameter)
    return [
        {"params": group, "lr": config.learning_rate * rate, "weight_decay": config.weight_decay if decayed else 0.0}
        for (rate, decayed), group in groups.items()
    ]
