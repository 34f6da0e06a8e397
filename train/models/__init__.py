"""Where networks come from, by the prefix of a recipe's `model`: builtin:NAME, hf:ID-OR-DIR, run:DIR and so on.

A source knows how to `check` a name early and to make a `draft` of a new classifier; `build` makes a saved one again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from serve.errors import UserError, did_you_mean
from serve.manifest import Preprocessing, Task
from train.draft import Draft, NetworkSpec, Wanted
from train.models import builtin, huggingface, saved, teacher_layers, torchvision_zoo

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
    "pkg": huggingface.HuggingFace("pkg"),
    "run": saved,
    "teacher-layers": teacher_layers,
    "torchvision": torchvision_zoo,
}
# A draft of `run:` or `teacher-layers:` is of the source that its weights once came from, so fewer know how to build.
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
    """Whether `model` starts from weights of the recipe's teacher: from its layers, embeddings or classifier."""
    return takes_layers(model) or (model.startswith("builtin:") and builtin.needs_teacher(options))


def takes_layers(model: str) -> bool:
    """Whether `model` is made of layers of the recipe's teacher, which must be a transformer then."""
    return model.startswith("teacher-layers:")


def check_teacher(model: str, options: dict[str, Any], teacher: Classifier) -> None:
    """Raise UserError unless `teacher`, trained or not, has the layers that `model` takes from it."""
    teacher_layers.check_teacher(model.partition(":")[2], options, teacher)


def without_widths(model: str, options: dict[str, Any]) -> dict[str, Any]:
    """`options` without what chooses heads and neurons, which takes a trained teacher and time."""
    return teacher_layers.without_widths(options) if takes_layers(model) else options


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
    return _BUILDERS[network.source](network, preprocessing, classes)


def _source(model: str) -> tuple[ModelSource, str]:
    prefix, _, name = model.partition(":")
    if prefix not in SOURCES or not name:
        hint = f"for example {', '.join(_EXAMPLES)}" if not name else did_you_mean(prefix, SOURCES)
        raise UserError(f"unknown kind of model in '{model}'", hint)
    return SOURCES[prefix], name
