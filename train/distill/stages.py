"""The stages of a convolutional network, found by watching one image pass: each ends where the map gets smaller.

N items, C channels, H x W positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from serve.errors import UserError
from serve.manifest import ImagePreprocessing
from train.classifier import Classifier
from train.distill.taps import Taps

_NO_STEPS = (nn.Identity, nn.Dropout)  # they hand on what the module before them made
_KEEP_LAYOUT = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)  # their maps are [N, C, H, W] for certain
Size = tuple[int, int]


@dataclass(frozen=True)
class Stage:
    """The end of a stage: the last module whose map has this size."""

    module: str  # its name within the classifier's network
    channels: int
    size: Size


@dataclass(frozen=True)
class Stages:
    """The stages of one network, tapped, the finest first."""

    taps: Taps
    stages: tuple[Stage, ...]

    def map(self, at: int) -> torch.Tensor:
        """What stage `at` gave in the last pass: float32 [N, C, H, W]."""
        return self.taps[str(at)]


def tap_stages(classifier: Classifier) -> Stages:
    """Find and tap the stages. Raises UserError for a network that does not make a map smaller and smaller."""
    found = find_stages(classifier)
    return Stages(
        Taps({str(at): classifier.network.get_submodule(stage.module) for at, stage in enumerate(found)}), found
    )


def find_stages(classifier: Classifier) -> tuple[Stage, ...]:
    """The ends of the stages.

    A size counts if a convolution or pooling gave it, since only these are sure to have their channels second: what
    Swin or the inside of ConvNeXt's blocks hands on as [N, H, W, C] is no map. A map of one position has no where.
    """
    shapes, sizes = _watch(classifier)
    last = {shape[2:]: name for name, shape in shapes.items() if not _is_inside(name, shape[2:], shapes, classifier)}
    found = [Stage(name, shapes[name][1], (size[0], size[1])) for size, name in last.items() if size in sizes]
    if len(found) < 2:
        raise UserError(
            f"'{classifier.spec.model}' has no stages to learn from or with: it does not make the image smaller step "
            "by step, as convolutional networks do",
            "leave out this one of [[students.distill.features]], or take a teacher and a student that are "
            "convolutional networks",
        )
    return tuple(sorted(found, key=lambda stage: -stage.size[0] * stage.size[1]))


def _watch(classifier: Classifier) -> tuple[dict[str, tuple[int, ...]], set[tuple[int, ...]]]:
    """Shapes [N, C, H, W] by the module that gave them, in the order in which these last ended; sizes that count."""
    shapes: dict[str, tuple[int, ...]] = {}
    sizes: set[tuple[int, ...]] = set()

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            shapes.pop(name, None)
            if isinstance(module, _NO_STEPS):
                return
            if isinstance(output, torch.Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1:
                shapes[name] = tuple(output.shape)
                if isinstance(module, _KEEP_LAYOUT):
                    sizes.add(tuple(output.shape[2:]))

        return hook

    network, training = classifier.network, classifier.training
    hooks = [module.register_forward_hook(watch(name)) for name, module in network.named_modules() if name]
    try:
        if isinstance(classifier.spec.preprocessing, ImagePreprocessing):
            with torch.no_grad():
                classifier.eval()(classifier.example(1).to(next(network.parameters()).device))
    finally:
        classifier.train(training)
        for handle in hooks:
            handle.remove()
    return shapes, sizes


def _is_inside(name: str, size: tuple[int, ...], shapes: dict[str, tuple[int, ...]], classifier: Classifier) -> bool:
    """Whether a module is in the middle of a block that makes maps smaller: what is before that is no end yet."""
    parts = name.split(".")
    around = [".".join(parts[:end]) for end in range(1, len(parts))]
    blocks = [at for at in around if not isinstance(classifier.network.get_submodule(at), nn.Sequential)]
    return any(at in shapes and shapes[at][2:] != size for at in blocks)


def pair_stages(ours: tuple[Stage, ...], theirs: tuple[Stage, ...]) -> list[tuple[int, int]]:
    """Stages of the student with those of the teacher: of equal size; where none is, the last two, the two before them

    and so on.
    """
    by_size = {stage.size: at for at, stage in enumerate(theirs)}
    pairs = [(at, by_size[stage.size]) for at, stage in enumerate(ours) if stage.size in by_size]
    if pairs:
        return pairs
    common = min(len(ours), len(theirs))
    return list(zip(range(len(ours) - common, len(ours)), range(len(theirs) - common, len(theirs)), strict=True))
