"""`builtin:NAME`: our own architectures, by name: `mlp-1200x1200`, `cnn-16x32`, `resnet20`, `wrn-16-2`, `textcnn`.

Each of those for images takes an image size and gives a module from float [N, C, H, W] to logits [N, K]; what is for
texts lies in builtin_text.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from serve.errors import UserError, did_you_mean
from serve.manifest import ImagePreprocessing, Preprocessing, Task
from train.draft import Draft, NetworkSpec, Normalisation, Wanted
from train.images import image_preprocessing, pixel_statistics, split_size
from train.models import builtin_text
from train.models.cnn import SmallCNN, SmallCNNOptions
from train.models.heads import head_of
from train.models.mlp import MLP, MLPOptions
from train.models.options import parse_options
from train.models.resnet import ResNetOptions, resnet, wide_resnet
from train.models.teacher_classifier import (
    copy_classifier,
    reuses_classifier,
    split_classifier,
    teacher_classifier,
)

Shape = tuple[int, int, int]  # height, width, channels


@dataclass(frozen=True)
class Family:
    pattern: str
    example: str
    options: type[BaseModel]
    build: Callable[[re.Match[str], Shape, int, Any], nn.Module]


def _widths(text: str) -> list[int]:
    return [int(width) for width in text.split("x")]


FAMILIES: dict[str, Family] = {
    "mlp": Family(
        r"mlp-([1-9]\d*(?:x[1-9]\d*)*)",
        "mlp-1200x1200",
        MLPOptions,
        lambda found, shape, classes, options: MLP(shape, _widths(found[1]), classes, options),
    ),
    "cnn": Family(
        r"cnn-([1-9]\d*(?:x[1-9]\d*)*)",
        "cnn-16x32",
        SmallCNNOptions,
        lambda found, shape, classes, options: SmallCNN(shape, _widths(found[1]), classes, options),
    ),
    "resnet": Family(
        r"resnet(\d+)",
        "resnet20",
        ResNetOptions,
        lambda found, shape, classes, options: resnet(int(found[1]), shape, classes, options),
    ),
    "wrn": Family(
        r"wrn-(\d+)-(\d+)",
        "wrn-16-2",
        ResNetOptions,
        lambda found, shape, classes, options: wide_resnet(int(found[1]), int(found[2]), shape, classes, options),
    ),
}


def check(name: str, options: dict[str, Any], task: Task) -> None:
    """Raise UserError unless `name` is a builtin architecture for `task` that takes `options`."""
    if name in builtin_text.NAMES:
        _check_task(name, "text", task, [family.example for family in FAMILIES.values()])
        return builtin_text.check(name, options)
    _find(name)
    _check_task(name, "image", task, builtin_text.NAMES)
    options, reuses = split_classifier(name, split_size(options)[0])
    if reuses:
        _check_reuse(name)
    with torch.device("meta"):  # whatever refuses to be built refuses now, not after the teacher was trained
        build_module(name, (8, 8, 1), 10, options)
    return None


def needs_teacher(options: dict[str, Any]) -> bool:
    """Whether a model with these options starts from weights of the recipe's teacher."""
    return builtin_text.needs_teacher(options) or reuses_classifier(options)


def _check_reuse(name: str) -> None:
    if "features" not in _find(name)[0].options.model_fields:
        takers = [family.example for family in FAMILIES.values() if "features" in family.options.model_fields]
        raise UserError(
            f"'builtin:{name}' has no features that a teacher's last layer could read",
            f'take one of {", ".join(takers)}, or leave out options.classifier = "teacher"',
        )


def _check_task(name: str, its: Task, task: Task, others: Sequence[str]) -> None:
    if its != task:
        raise UserError(
            f"'builtin:{name}' classifies {its}s, but the recipe's task is {task}",
            f"for {task}s there is {', '.join(f'builtin:{other}' for other in others)}; "
            f'for data of {its}s write task = "{its}" at the top of the recipe',
        )


def draft(name: str, options: dict[str, Any], wanted: Wanted) -> Draft:
    """A fresh network. One for images normalises with the statistics of the training split."""
    if name in builtin_text.NAMES:
        return builtin_text.draft(name, options, wanted)
    options, preprocessing = image_preprocessing(options, wanted)
    mean, std = pixel_statistics(wanted.images(preprocessing))
    options, reuses = split_classifier(name, options)
    layer = teacher_classifier(name, wanted.teacher) if reuses else None
    if layer is not None:
        options = {**options, "features": layer.in_features}
    network = NetworkSpec(source="builtin", name=name, config=options)
    module = build(network, preprocessing, len(wanted.labels))
    if layer is not None:
        copy_classifier(layer, head_of(module))
    return Draft(network, module, preprocessing, Normalisation(mean=mean, std=std))


def origin(name: str, options: dict[str, Any]) -> str | None:
    """The library that learns a text model's tokenizer; the networks are a part of limbeck."""
    return f"tokenizers {version('tokenizers')}" if name in builtin_text.NAMES else None


def build(network: NetworkSpec, preprocessing: Preprocessing, classes: int) -> nn.Module:
    """The architecture as its spec says, freshly initialised from torch's global generator."""
    if not isinstance(preprocessing, ImagePreprocessing):
        return builtin_text.build(network, classes)
    return build_module(network.name, preprocessing.shape, classes, network.config)


def build_module(name: str, shape: Shape, classes: int, options: dict[str, Any]) -> nn.Module:
    family, found = _find(name)
    return family.build(found, shape, classes, parse_options(family.options, f"builtin:{name}", options))


def _find(name: str) -> tuple[Family, re.Match[str]]:
    for family in FAMILIES.values():
        if found := re.fullmatch(family.pattern, name):
            return family, found
    examples = [*(family.example for family in FAMILIES.values()), *builtin_text.NAMES]
    raise UserError(f"unknown builtin model '{name}'", did_you_mean(name, examples))
