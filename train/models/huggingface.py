"""`hf:` and `pkg:`: pretrained models in Hugging Face's format. What is particular to a task lies in hf_*.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from serve.manifest import Preprocessing, Task
from train.draft import Draft, NetworkSpec, Wanted
from train.models import hf_images, hf_text
from train.models.hub import Kind, fingerprint, plain_config, resolve, saved_config
from train.models.narrow import narrow
from train.models.pretrained import set_dropout
from train.sources import expand


@dataclass(frozen=True)
class HuggingFace:
    """The source of models whose names begin with `kind`; `train.models.ModelSource`."""

    kind: Kind

    def check(self, name: str, options: dict[str, Any], task: Task) -> None:
        """Raise UserError unless `name` is found and can do `task` with `options`. Fetches no weights yet."""
        here = self.kind == "pkg" or expand(name).is_dir()
        _of(task).check(resolve(self.kind, name, weights=here), f"{self.kind}:{name}", options)

    def draft(self, name: str, options: dict[str, Any], wanted: Wanted) -> Draft:
        """The pretrained network, with a head for the wanted labels."""
        return _of(wanted.task).draft(resolve(self.kind, name), f"{self.kind}:{name}", options, wanted)

    def origin(self, name: str, options: dict[str, Any]) -> str:
        """A hash of the folder's configuration, tokenizer and weights."""
        return fingerprint(resolve(self.kind, name))


def build(network: NetworkSpec, preprocessing: Preprocessing, classes: int) -> nn.Module:
    """A saved network's architecture, its weights yet to be loaded."""
    module: nn.Module = _of(preprocessing.kind).build(network, classes)
    narrow(module, network)
    return module


def with_dropout(network: NetworkSpec, preprocessing: Preprocessing, dropout: float | None, name: str) -> NetworkSpec:
    """`network` with this dropout wherever its kind has one. Raises UserError where it has none."""
    if dropout is None:
        return network
    config = saved_config(network.name, network.config)
    set_dropout(config, _of(preprocessing.kind).DROPOUTS, dropout, name)
    return network.model_copy(update={"config": plain_config(config)})


def _of(task: Task) -> Any:
    """The module for a task: its `check`, `draft` and `build`."""
    return {"image": hf_images, "text": hf_text}[task]
