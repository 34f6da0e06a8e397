"""Where hidden states, queries, keys and values are found inside a transformer, whatever its family calls them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import nn

from serve.errors import UserError
from train.classifier import Classifier
from train.distill.taps import Taps
from train.models.layer_stack import layer_stack
from train.models.narrow import count_heads

_NAMES = {  # BERT and RoBERTa; DistilBERT; MPNet; ViT
    "query": ("query", "q_lin", "q", "q_proj"),
    "key": ("key", "k_lin", "k", "k_proj"),
    "value": ("value", "v_lin", "v", "v_proj"),
}
_FUSED = "c_attn"  # GPT-2: queries, keys and values side by side


@dataclass(frozen=True)
class Inside:
    """The layers of one transformer, tapped."""

    taps: Taps
    layers: int
    heads: int
    width: int

    def hidden(self, layer: int) -> torch.Tensor:
        """Hidden states after a layer: [N, L, D]."""
        return self.taps[f"hidden.{layer}"]

    def embedded(self) -> torch.Tensor:
        """What the embeddings gave to the first layer, positions and all: [N, L, D]."""
        return self.taps["embedded"]

    def vectors(self, part: str, layer: int) -> torch.Tensor:
        """Queries, keys or values ("query", "key", "value") of a layer, all heads side by side: [N, L, D]."""
        if self.taps.has(f"fused.{layer}"):
            return self.taps[f"fused.{layer}"].chunk(3, dim=2)[list(_NAMES).index(part)]
        return self.taps[f"{part}.{layer}"]


def look_inside(classifier: Classifier) -> Inside:
    """Tap the layers of a transformer. Raises UserError where the model has none."""
    stack = None
    if classifier.spec.network.source == "transformers":
        stack = layer_stack(dict(classifier.network.state_dict()))
    heads = count_heads(classifier.spec.network)
    if stack is None or heads is None:
        raise UserError(
            f"'{classifier.spec.model}' has no transformer layers to learn from or with",
            "leave out [[students.distill.features]], or take a teacher and a student that are transformers",
        )
    layers = list(classifier.network.get_submodule(stack).children())
    modules = {f"hidden.{at}": layer for at, layer in enumerate(layers)}
    for at, layer in enumerate(layers):
        modules.update({f"{part}.{at}": found for part, found in _attention(layer).items()})
    width = next(int(module.weight.shape[0]) for module in layers[0].modules() if isinstance(module, nn.LayerNorm))
    return Inside(Taps(modules, {"embedded": layers[0]}), len(layers), heads, width)


def _attention(layer: nn.Module) -> dict[str, nn.Module]:
    """The modules of a layer that make queries, keys and values."""
    found = {}
    for name, module in layer.named_modules():
        last = re.sub(r".*\.", "", name)
        if last == _FUSED:
            found["fused"] = module
        found.update({part: module for part, names in _NAMES.items() if last in names})
    return found
