"""`classifier = "teacher"`: a student's last layer is its teacher's, so that its features must become the teacher's.

SimKD (Chen et al. 2022, arXiv 2203.14001). There the student learns from the features alone and the layer is never
trained; here it is where the layer starts, and [students.distill] says what is learned: the loss `hints` of the last
stages is for the features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from serve.errors import UserError
from serve.manifest import ImagePreprocessing
from train.models.heads import head_of

if TYPE_CHECKING:
    from train.classifier import Classifier

OPTION = "classifier"
_CHOICES = ("new", "teacher")


def reuses_classifier(options: dict[str, Any]) -> bool:
    """Whether a model with these options takes its teacher's last layer."""
    return options.get(OPTION) == "teacher"


def split_classifier(name: str, options: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The options of the network itself, and whether the teacher's last layer is wanted."""
    rest = {key: value for key, value in options.items() if key != OPTION}
    if options.get(OPTION, "new") not in _CHOICES:
        raise UserError(
            f"model '{name}' does not take option {OPTION} = {options[OPTION]!r}", f"take one of {', '.join(_CHOICES)}"
        )
    if reuses_classifier(options) and "features" in rest:
        raise UserError(
            f'{OPTION} = "teacher" has the width of the teacher\'s features, so options.features would have no effect',
            "leave it out",
        )
    return rest, reuses_classifier(options)


def teacher_classifier(name: str, teacher: Classifier | None) -> nn.Linear:
    """The teacher's last layer. Raises UserError without a teacher of images that scores by one after an average."""
    if teacher is None or not isinstance(teacher.spec.preprocessing, ImagePreprocessing):
        raise UserError(
            f"'builtin:{name}' with {OPTION} = \"teacher\" needs a teacher of images, and there is none",
            "leave it out, or give it to a student",
        )
    layer = head_of(teacher.network)
    if layer.out_features != len(teacher.spec.labels):
        raise UserError(
            f"the last linear layer of '{teacher.spec.model}' gives {layer.out_features} numbers for "
            f"{len(teacher.spec.labels)} labels, so it is not what scores",
            f'leave out options.{OPTION} = "teacher"',
        )
    return layer


@torch.no_grad()
def copy_classifier(source: nn.Linear, target: nn.Linear) -> None:
    """Weight [K, D] and bias [K]; zero where the source has none."""
    target.weight.copy_(source.weight)
    target.bias.copy_(source.bias if source.bias is not None else torch.zeros_like(target.bias))
