"""`heads` and `ffn_width` of teacher-layers: of each layer the most important heads and feed-forward neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from serve.errors import UserError
from train.draft import NetworkSpec, Wanted
from train.models.importance import Importance, drawn_inputs, magnitude, most_important, taylor
from train.models.narrow import LayerParts, keep_heads, keep_neurons, layer_parts, narrowed

if TYPE_CHECKING:
    from train.classifier import Classifier

# What a vector register holds of float32 with AVX2, and a fraction of what it holds of int8: other widths leave the
# last register of each row half empty.
MULTIPLE = 8


class WidthOptions(BaseModel):
    """How wide the student's layers are, and by what the units that stay are chosen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    heads: int | None = Field(default=None, ge=1)  # of each layer; None: all of the teacher's
    ffn_width: int | None = Field(default=None, ge=1)  # feed-forward neurons of each layer; None: all
    importance: Literal["taylor", "magnitude"] = "taylor"
    importance_items: int = Field(default=256, ge=1)  # training items, drawn by the seed, that "taylor" looks at

    @property
    def is_active(self) -> bool:
        """Whether anything is cut."""
        return self.heads is not None or self.ffn_width is not None


def check_widths(options: WidthOptions, name: str) -> None:
    """Raise UserError for options that say nothing, and for a width that the runtime is not made for."""
    given = options.model_fields_set & {"importance", "importance_items"}
    if given and not options.is_active:
        raise UserError(
            f"'{name}': options.{min(given)} says which heads and neurons are kept, but all are",
            "set options.heads or options.ffn_width too, or leave it out",
        )
    if options.importance == "magnitude" and "importance_items" in given:
        raise UserError(f"'{name}': importance = \"magnitude\" looks at no items", "leave out options.importance_items")
    width = options.ffn_width
    if width is not None and width % MULTIPLE:
        low = width // MULTIPLE * MULTIPLE
        nearest = " or ".join(str(near) for near in (low, low + MULTIPLE) if near)
        raise UserError(
            f"'{name}': ffn_width = {width} is no multiple of {MULTIPLE}, in which processors multiply",
            f"give ffn_width = {nearest}",
        )


def check_teacher(options: WidthOptions, teacher: Classifier, name: str) -> None:
    """Raise UserError where the teacher's layers are no wider than this, or cannot be cut."""
    if not options.is_active:
        return
    layer = layer_parts(teacher.network, teacher.spec.network, teacher.spec.model)[0]
    for option, wanted, there in (
        ("heads", options.heads, layer.heads),
        ("ffn_width", options.ffn_width, layer.neurons),
    ):
        if wanted is not None and wanted > there:
            raise UserError(
                f"'{name}': {option} = {wanted}, but the teacher '{teacher.spec.model}' has {there}",
                f"give at most {option} = {there}",
            )
    if options.heads is not None and options.heads * layer.head_size % MULTIPLE:
        raise UserError(
            f"'{name}': {options.heads} heads of size {layer.head_size} are {options.heads * layer.head_size} wide, "
            f"which is no multiple of {MULTIPLE}",
            "give another number of heads",
        )


def cut(
    module: nn.Module,
    network: NetworkSpec,
    taken: Sequence[int],
    options: WidthOptions,
    start: Classifier,
    wanted: Wanted,
) -> NetworkSpec:
    """Leave each layer of `module`, which has the layers `taken` of `start`, what is most important there.

    `start` is the teacher, or what an earlier step of pruning left of it. Gives the description of what is left now.
    """
    if not options.is_active:
        return network
    found = _importance(options, start, wanted)
    layers = layer_parts(module, network, start.spec.model)
    for at, layer in zip(taken, layers, strict=True):
        if options.heads is not None:
            keep_heads(layer, most_important(found[at].heads, options.heads))
        if options.ffn_width is not None:
            keep_neurons(layer, most_important(found[at].neurons, options.ffn_width))
    return narrowed(network, options.heads, options.ffn_width)


def describe(options: WidthOptions, teacher: Classifier) -> str:
    """What of the teacher's layers the student has, in words."""
    layer = layer_parts(teacher.network, teacher.spec.network, teacher.spec.model)[0]
    parts = []
    if options.heads is not None:
        parts.append(f"{options.heads} of their {layer.heads} attention heads")
    if options.ffn_width is not None:
        parts.append(f"{options.ffn_width} of their {layer.neurons} feed-forward neurons")
    return " and ".join(parts)


def _importance(options: WidthOptions, start: Classifier, wanted: Wanted) -> list[Importance]:
    """Of all layers of `start`. "taylor" asks it on a GPU where there is one."""
    layers: list[LayerParts] = layer_parts(start.network, start.spec.network, start.spec.model)
    if options.importance == "magnitude":
        return magnitude(layers)
    inputs = drawn_inputs(wanted, options.importance_items, start)
    before = next(start.parameters()).device
    try:
        return taylor(start.to("cuda" if torch.cuda.is_available() else before), layers, inputs)
    finally:
        start.to(before)
