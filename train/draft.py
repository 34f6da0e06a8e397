"""What the sources of models have in common: what is asked of them, and what they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict
from torch import nn

from serve.manifest import ImagePreprocessing, Preprocessing, Task
from train.sources import Items

if TYPE_CHECKING:
    from train.classifier import Classifier
    from train.inputs import Inputs


class Widths(BaseModel):
    """How wide each layer of a transformer is, where that is less than its configuration says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    heads: int | None = None  # attention heads, each as large as it was
    ffn: int | None = None  # feed-forward neurons


class Pruned(BaseModel):
    """What a network lacks of the one that its source builds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    removed: tuple[str, ...] = ()  # residual blocks that hand on what they are given
    shapes: dict[str, tuple[int, ...]] = {}  # of the parameters and buffers that are smaller


class NetworkSpec(BaseModel):
    """All that is needed to build a network again, before its weights are loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["builtin", "torchvision", "transformers"]
    name: str
    config: dict[str, Any] = {}
    widths: Widths | None = None  # of transformers
    pruned: Pruned | None = None  # of convolutional networks


class TakenLayers(NamedTuple):
    """As which of its teacher's layers, counted from 0, each of a student's began."""

    numbers: tuple[int, ...]
    of: int  # so many has the teacher


class Normalisation(BaseModel):
    """Per channel, of pixels scaled to 0..1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Wanted:
    """What a new classifier must fit."""

    task: Task
    labels: tuple[str, ...]
    seed: int
    train: Items  # for what is learned before training: a tokenizer, an image size
    images: Callable[[ImagePreprocessing], Inputs]  # the training split, prepared in this way; images only
    teacher: Classifier | None = None  # the recipe's, for a student: whose view it shares, whose layers it may take


@dataclass(frozen=True)
class Draft:
    """A network, new or pretrained, with all that makes it a classifier of request bytes."""

    network: NetworkSpec
    module: nn.Module  # images: float [N, C, H, W] -> logits; texts: ids, mask int64 [N, L] -> logits
    preprocessing: Preprocessing
    normalisation: Normalisation | None  # images only
    files: Mapping[str, bytes] = field(default_factory=dict)  # of the package: the tokenizer.json of a text model
    untrained: str | None = "its weights are new"  # why it cannot classify yet; None: it can, trained elsewhere
    layers: TakenLayers | None = None  # of a student made of its teacher's
