"""Where networks come from, by the prefix of a recipe's `model`: builtin:NAME, hf:ID-OR-DIR, run:DIR and so on.

A source knows how to `check` a name early and to make a `draft` of a new classifier; `build` makes a saved one again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from serve.errors import UserError, did_you_mean
from serve.manifest import Preprocessing, Task
from train.draft import Draft, NetworkSpec, Wanted
from train.models import (
    builtin,
    channel_options,
    huggingface,
    onnx_file,
    saved,
    teacher_channels,
    teacher_layers,
    torchvision_zoo,
)
from train.models.pruned_network import shrink
from train.models.step_options import at_once

if TYPE_CHECKING:
    from train.classifier import Classifier


class ModelSource(Protocol):
    """One way to name a model; `name` is what follows the prefix."""

    def check(self, name: str, options: dict[str, Any], task: Task) -> None:
        """Raise UserError, before anything is trained, for a name or options that cannot be."""

    def draft(self, name: str, options: dict[str, Any], wanted: Wanted) -> Draft:
        """A new classifier's network. Random weights come from torch's global generator."""

    def origin(self, name: str, options: dict[str, Any]) -> str | None:
        """What a draft depends on besides name, options and teacher, as a hash or a version; None: nothing."""


SOURCES: dict[str, ModelSource] = {
    "builtin": builtin,
    "hf": huggingface.HuggingFace("hf"),
    "onnx": onnx_file,
    "pkg": huggingface.HuggingFace("pkg"),
    "run": saved,
    "teacher-channels": teacher_channels,
    "teacher-layers": teacher_layers,
    "torchvision": torchvision_zoo,
}
# A draft of `run:`, `teacher-channels:` or `teacher-layers:` is of the source that its weights once came from, so fewer
# know how to build.
_BUILDERS: dict[str, Any] = {
    "builtin": builtin.build,
    "torchvision": torchvision_zoo.build,
    "transformers": huggingface.build,
}
_EXAMPLES = ("builtin:mlp-800x800", "hf:path/to/folder")


def check_model(model: str, options: dict[str, Any], task: Task) -> None:
    """Raise UserError, with what is wrong, unless `model` can be made with `options` for `task`."""
    source, name = _source(model)
    source.check(name, options, task)


def needs_teacher(model: str, options: dict[str, Any]) -> bool:
    """Whether `model` starts from weights of the recipe's teacher: its layers, channels, embeddings or classifier."""
    return (
        takes_layers(model)
        or takes_channels(model)
        or (model.startswith("builtin:") and builtin.needs_teacher(options))
    )


def takes_layers(model: str) -> bool:
    """Whether `model` is made of layers of the recipe's teacher, which must be a transformer then."""
    return model.startswith("teacher-layers:")


def takes_channels(model: str) -> bool:
    """Whether `model` is the recipe's teacher with fewer channels, which must be a convolutional network then."""
    return model.startswith(f"{channel_options.PREFIX}:")


def check_teacher(model: str, options: dict[str, Any], teacher: Classifier) -> None:
    """Raise UserError unless `teacher`, trained or not, has the layers or channels that `model` takes from it."""
    _of_teacher(model).check_teacher(model.partition(":")[2], options, teacher)


def cuts_layers_in_steps(model: str, options: dict[str, Any], teacher: Classifier) -> bool:
    """Whether `model` has more numbered layers in its trainings between steps than in the end."""
    return takes_layers(model) and teacher_layers.cuts_layers_in_steps(model.partition(":")[2], options, teacher)


def without_widths(model: str, options: dict[str, Any]) -> dict[str, Any]:
    """`options` without what chooses heads, neurons and channels, which takes a trained teacher and time."""
    if takes_channels(model):
        return teacher_channels.quick(options)
    return teacher_layers.without_widths(options) if takes_layers(model) else options


def pruning_steps(model: str, options: dict[str, Any]) -> tuple[int, int]:
    """In how many steps `model` is made smaller, and after how many epochs of training the next one follows."""
    if not (takes_channels(model) or takes_layers(model)):
        return 1, 0
    return _of_teacher(model).steps_of(model.partition(":")[2], options)


def in_one_step(model: str, options: dict[str, Any]) -> dict[str, Any]:
    """`options` of a network of the shape that `model` has after its last step."""
    return at_once(options) if takes_channels(model) or takes_layers(model) else options


def next_step(start: Classifier, model: str, options: dict[str, Any], wanted: Wanted, step: int) -> Draft:
    """What pruning step `step`, counted from 1, makes of what the one before left and training recovered."""
    name, spec = model.partition(":")[2], start.spec
    network, module = _of_teacher(model).smaller(start, name, options, wanted, step)
    layers = None
    if takes_layers(model) and wanted.teacher is not None:
        layers = teacher_layers.taken_layers(name, options, wanted.teacher, step)
    return Draft(network, module, spec.preprocessing, spec.normalisation, start.files, start.untrained, layers)


def origin(model: str, options: dict[str, Any]) -> str | None:
    """The files that `model` starts from, as a hash, or the library that defines it: the same name may mean another

    model tomorrow. None where there is neither.
    """
    source, name = _source(model)
    return source.origin(name, options)


def draft_model(model: str, options: dict[str, Any], wanted: Wanted) -> Draft:
    """The network that `model` names, made for what is wanted."""
    source, name = _source(model)
    return source.draft(name, options, wanted)


def build_network(network: NetworkSpec, preprocessing: Preprocessing, classes: int) -> nn.Module:
    """A saved network's architecture, its weights yet to be loaded."""
    module: nn.Module = _BUILDERS[network.source](network, preprocessing, classes)
    if network.pruned is not None:
        shrink(module, network.pruned, network.name)
    return module


def _of_teacher(model: str) -> Any:
    """The source of a model that is cut from the recipe's teacher."""
    return teacher_channels if takes_channels(model) else teacher_layers


def _source(model: str) -> tuple[ModelSource, str]:
    prefix, _, name = model.partition(":")
    if prefix not in SOURCES or not name:
        hint = f"for example {', '.join(_EXAMPLES)}" if not name else did_you_mean(prefix, SOURCES)
        raise UserError(f"unknown kind of model in '{model}'", hint)
    return SOURCES[prefix], name
