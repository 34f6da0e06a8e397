"""`fit.gradient_checkpointing`: layers keep their input alone and compute the rest again in the backward pass.

Chen et al. 2016 (arXiv 1604.06174). The gradients are the same: dropout draws what it drew (torch restores the random
state), and batch norm, which would take a batch into its running statistics twice, works on copies the second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from serve.errors import UserError
from train.classifier import Classifier

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
Contexts = tuple[AbstractContextManager[None], AbstractContextManager[None]]


@contextmanager
def recomputing(classifier: Classifier) -> Iterator[None]:
    """For a while the layers of `classifier` recompute. Raises UserError where it has none."""
    models, blocks = recomputed_layers(classifier)
    contexts = partial(_contexts, classifier.network)
    for model in models:
        _switch(model, "enable")({"use_reentrant": False, "context_fn": contexts})
        model.disable_input_require_grads()  # the other kind of checkpoints needs it; not ours
    for block in blocks:
        setattr(block, "forward", partial(_forward, block, block.forward))  # noqa: B010
    try:
        yield
    finally:
        for model in models:
            _switch(model, "disable")()
        for block in blocks:
            delattr(block, "forward")


def recomputed_layers(classifier: Classifier) -> tuple[list[PreTrainedModel], list[nn.Module]]:
    """Models of transformers, which know their layers themselves, or the blocks of another network.

    Raises UserError where there is neither.
    """
    models = [module for module in classifier.network.modules() if isinstance(module, PreTrainedModel)][:1]
    able = [model for model in models if model.supports_gradient_checkpointing]
    blocks = [] if able else list(_blocks(classifier.network))
    if not able and not blocks:
        raise UserError(
            f"fit.gradient_checkpointing: '{classifier.spec.model}' has no layers to compute again",
            "leave it out: it is for transformers and for networks of blocks, such as ResNets; a smaller "
            "fit.batch_size with more fit.accumulation saves memory too",
        )
    return able, blocks


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of containers that are more than a container and hold several weighted modules.

    A convolution alone is none: its input, which is kept, is all that it remembers.
    """
    for member in network.children():
        listed = isinstance(network, _CONTAINERS) and not isinstance(member, _CONTAINERS)
        if listed and sum(any(True for _ in part.parameters(recurse=False)) for part in member.modules()) > 1:
            yield member
        else:
            yield from _blocks(member)


def _forward(block: nn.Module, forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*given, **named)
    kept = [list(one) if isinstance(one, list) else one for one in given]  # DenseNet appends to what it gave
    return checkpoint(forward, *kept, use_reentrant=False, context_fn=partial(_contexts, block), **named)


def _switch(model: PreTrainedModel, way: str) -> Callable[..., None]:
    """What transformers calls gradient checkpointing; it has renamed it in 5.x and warns of the earlier name."""
    for name in (f"activation_checkpointing_{way}", f"gradient_checkpointing_{way}"):
        if hasattr(model, name):
            found: Callable[..., None] = getattr(model, name)
            return found
    raise AssertionError("no transformers of ours is without")


def _contexts(layers: nn.Module) -> Contexts:
    """Of the first computation, and of the second."""
    return nullcontext(), _statistics_aside(layers)


@contextmanager
def _statistics_aside(layers: nn.Module) -> Iterator[None]:
    """Batch norms update copies of their running statistics."""
    kept = [(norm, dict(norm._buffers)) for norm in layers.modules() if isinstance(norm, _BatchNorm)]
    for norm, buffers in kept:
        norm._buffers.update({name: None if value is None else value.clone() for name, value in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in kept:
            norm._buffers.update(buffers)
