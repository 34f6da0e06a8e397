"""Attention heads and feed-forward neurons of a transformer's layers: where they are, and layers with some of them.

transformers' attention takes any number of heads of the size that a model has, but its configurations cannot say so
where heads x size is not the hidden size. So a `NetworkSpec` says it, and `build` cuts a network that was built whole.
H heads, F feed-forward neurons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from serve.errors import UserError
from train.draft import NetworkSpec, Widths
from train.models.layer_stack import layer_stack

_HEADS = ("num_attention_heads", "n_heads", "n_head")  # BERT and ViT, DistilBERT, GPT-2
_BERT = (
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    *("attention.output.dense", "intermediate.dense", "output.dense"),
)
_DISTILBERT = (("attention.q_lin", "attention.k_lin", "attention.v_lin"), "attention.out_lin", "ffn.lin1", "ffn.lin2")
_GPT2 = (("attn.c_attn",), "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
_VIT = (("attention.q_proj", "attention.k_proj", "attention.v_proj"), "attention.o_proj", "mlp.fc1", "mlp.fc2")
# By model type: what makes queries, keys and values, what takes the heads together, and both halves of the feed-forward
# part. Kinds with a bias for each head (MPNet, T5) or layers of their own (Swin) are not among them.
_PARTS: dict[str, tuple[tuple[str, ...], str, str, str]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "distilbert": _DISTILBERT,
    "gpt2": _GPT2,
    **dict.fromkeys(("vit", "deit"), _VIT),
}


@dataclass(frozen=True)
class LayerParts:
    """The modules of one layer, and how many heads it has. Both `after_*` take their units side by side."""

    attention: Any  # the module that holds `into_heads`
    into_heads: tuple[nn.Module, ...]  # queries, keys, values; or one that makes all three
    after_heads: nn.Module  # [N, L, H * size] -> [N, L, D]
    into_neurons: nn.Module
    after_neurons: nn.Module  # [N, L, F] -> [N, L, D]
    heads: int

    @property
    def head_size(self) -> int:
        return _inputs(self.after_heads) // self.heads

    @property
    def neurons(self) -> int:
        return _inputs(self.after_neurons)


def count_heads(network: NetworkSpec) -> int | None:
    """The attention heads of each layer; None where the configuration speaks of none."""
    if network.widths is not None and network.widths.heads is not None:
        return network.widths.heads
    return next((int(network.config[key]) for key in _HEADS if isinstance(network.config.get(key), int)), None)


def layer_parts(module: nn.Module, network: NetworkSpec, model: str) -> list[LayerParts]:
    """The parts of each layer of `module`, which `network` describes. Raises UserError for kinds that are not known."""
    names, heads = _PARTS.get(network.name), count_heads(network)
    if network.source != "transformers" or names is None or heads is None:
        raise UserError(
            f"'{model}' is a {network.name} model, of which heads and neurons cannot be told apart",
            f"leave out heads and ffn_width, or take a teacher of these kinds: {', '.join(_PARTS)}",
        )
    into, after, first, second = names
    return [
        LayerParts(
            attention=layer.get_submodule(into[0].rpartition(".")[0]),
            into_heads=tuple(layer.get_submodule(name) for name in into),
            after_heads=layer.get_submodule(after),
            into_neurons=layer.get_submodule(first),
            after_neurons=layer.get_submodule(second),
            heads=heads,
        )
        for layer in module.get_submodule(layer_stack(module.state_dict())).children()
    ]


def keep_heads(layer: LayerParts, kept: Sequence[int]) -> None:
    """Leave a layer these of its heads, as they are."""
    size, whole = layer.head_size, layer.heads * layer.head_size
    rows = torch.cat([torch.arange(head * size, (head + 1) * size) for head in kept])
    fused = len(layer.into_heads) == 1
    for module in layer.into_heads:
        _take(module, outputs=torch.cat([rows, rows + whole, rows + 2 * whole]) if fused else rows)
    if fused:  # GPT-2 keeps in mind how wide its queries are; the other kinds ask their weights
        layer.attention.split_size = len(rows)
    _take(layer.after_heads, inputs=rows)


def keep_neurons(layer: LayerParts, kept: Sequence[int]) -> None:
    """Leave a layer these of its feed-forward neurons, as they are."""
    rows = torch.tensor(list(kept))
    _take(layer.into_neurons, outputs=rows)
    _take(layer.after_neurons, inputs=rows)


def narrow(module: nn.Module, network: NetworkSpec) -> None:
    """Give a network that was built whole the widths that `network` names; its weights are yet to be loaded."""
    if network.widths is None:
        return
    whole = network.model_copy(update={"widths": None})
    for layer in layer_parts(module, whole, network.name):
        if network.widths.heads is not None:
            keep_heads(layer, range(network.widths.heads))
        if network.widths.ffn is not None:
            keep_neurons(layer, range(network.widths.ffn))


def narrowed(network: NetworkSpec, heads: int | None, ffn: int | None) -> NetworkSpec:
    """The description of `network` with so many heads and neurons in each layer; None: as many as it has."""
    if heads is None and ffn is None:
        return network
    before = network.widths or Widths()
    widths = Widths(heads=before.heads if heads is None else heads, ffn=before.ffn if ffn is None else ffn)
    return network.model_copy(update={"widths": widths})


def _inputs(module: nn.Module) -> int:
    return int(module.nx if isinstance(module, Conv1D) else module.in_features)  # type: ignore[arg-type]


@torch.no_grad()
def _take(module: Any, outputs: torch.Tensor | None = None, inputs: torch.Tensor | None = None) -> None:
    """Leave a linear layer these of its outputs or inputs. A Conv1D is one whose weight is [inputs, outputs]."""
    turned = isinstance(module, Conv1D)
    weight = module.weight.T if turned else module.weight  # [outputs, inputs]
    if outputs is not None:
        weight = weight[outputs]
        if module.bias is not None:
            module.bias = nn.Parameter(module.bias[outputs].clone())
    if inputs is not None:
        weight = weight[:, inputs]
    sizes = ("nf", "nx") if turned else ("out_features", "in_features")
    for name, size in zip(sizes, weight.shape, strict=True):
        setattr(module, name, int(size))
    module.weight = nn.Parameter((weight.T if turned else weight).contiguous().clone())
