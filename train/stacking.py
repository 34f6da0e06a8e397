"""`fit.stack`: a transformer is trained with its first layers alone, which are then copied on top of themselves.

Progressive stacking (Gong et al. 2019, "Efficient Training of BERT by Progressively Stacking", ICML 2019): attention
looks much alike in all layers, so a trained lower half is a good start for the upper one, and the epochs before cost
less. All layers go on learning, unlike in arXiv 2011.13635, where the new ones alone do.

All layers are there from the start. Those that do not count yet hand on what they are given: they cost nothing, have no
gradient and no state of the optimizer, and lie in each checkpoint untouched. What a layer is follows from the number
of the epoch, so a resumed training does the same. A copied layer starts with no state of the optimizer; the layers that
it was copied from keep theirs.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from serve.errors import UserError
from train.classifier import Classifier
from train.fit_config import FitConfig, StackConfig
from train.models.layer_stack import layer_stack


class Stacking(TrainerCallback):
    """Sets how many layers count at the start of each epoch, and copies where that is more than before."""

    def __init__(self, classifier: Classifier, config: StackConfig) -> None:
        """Raises UserError for a network that cannot be stacked so."""
        self._layers = stackable_layers(classifier, config)
        self._config = config

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        epoch, total = round(state.epoch or 0), len(self._layers)
        depth, before = self._config.depth(epoch, total), self._config.depth(max(epoch - 1, 0), total)
        for at in range(before, depth):
            self._layers[at].load_state_dict(self._layers[at % before].state_dict())
        self._use(depth)

    def close(self) -> None:
        """All layers count again."""
        self._use(len(self._layers))

    def _use(self, depth: int) -> None:
        for at, layer in enumerate(self._layers):
            layer.__dict__.pop("forward", None)
            layer.requires_grad_(at < depth)  # a penalty on all weights (fit.l1) must not move it either
            if at >= depth:
                layer.__dict__["forward"] = _hand_on


def _hand_on(hidden_states: torch.Tensor, *arguments: object, **named: object) -> torch.Tensor:
    """In the place of a layer's own `forward`."""
    return hidden_states


def check_stacking(config: FitConfig, classifier: Classifier) -> None:
    """Raise UserError unless `classifier` can be trained as `config.stack` says."""
    if config.stack is not None:
        stackable_layers(classifier, config.stack)


def stackable_layers(classifier: Classifier, config: StackConfig) -> list[nn.Module]:
    """The layers of a transformer, all alike. Raises UserError where there are none, or no more than `config` names."""
    network, model = classifier.network, classifier.spec.model
    layers: list[nn.Module] = []
    if classifier.spec.network.source == "transformers":
        layers = list(network.get_submodule(layer_stack(network.state_dict())).children())
    shapes = [{name: value.shape for name, value in layer.state_dict().items()} for layer in layers]
    if not layers or any(other != shapes[0] for other in shapes) or not _hands_on_states(classifier, layers):
        raise UserError(
            f"fit.stack: '{model}' is no stack of layers that are all alike, as transformers are",
            "leave it out; it is for BERT, DistilBERT, RoBERTa, GPT-2 and ViT, and students made of their layers",
        )
    if config.layers[-1] >= len(layers):
        raise UserError(
            f"fit.stack starts with {config.layers[-1]} layers, but '{model}' has {len(layers)} in all",
            f"name numbers below {len(layers)}; what is left is trained with all layers",
        )
    return layers


@torch.no_grad()
def _hands_on_states(classifier: Classifier, layers: list[nn.Module]) -> bool:
    """Whether each layer gives what the next one takes: a tensor, and nothing else."""
    given: list[object] = []
    hooks = [layer.register_forward_hook(lambda _, inputs, output: given.append(output)) for layer in layers]
    training, device = classifier.training, next(classifier.parameters()).device
    try:
        classifier.eval()(classifier.example(1).to(device))
    finally:
        classifier.train(training)
        for hook in hooks:
            hook.remove()
    return len(given) == len(layers) and all(isinstance(output, torch.Tensor) for output in given)
