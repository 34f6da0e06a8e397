"""One student's lesson: the teacher is asked, both are looked into, and the losses of the recipe are added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from serve.errors import UserError
from train.classifier import Classifier
from train.distill import encoder_features, stage_features
from train.distill.answers import OnLabels, answers_and_labels
from train.distill.config import DistillConfig, FeatureConfig
from train.distill.ensemble import combined

PROJECTIONS = "projections"


class Features(Protocol):
    """A way to look into student and teacher."""

    projections: nn.ModuleDict

    def loss(self, feature: FeatureConfig, inputs: torch.Tensor) -> torch.Tensor: ...

    def close(self) -> None: ...


class Lesson:
    """What a student is taught. The teachers, in eval mode, are asked for each batch, or they answered in advance."""

    def __init__(
        self,
        student: Classifier,
        teacher: Classifier | None,
        config: DistillConfig,
        others: Sequence[Classifier] = (),
    ) -> None:
        """`teacher` is None where all answers are known; looking inside it needs it at each batch.

        `others` are the further teachers of `config`, who are asked and never looked into. Where what is compared has
        another width, a projection is learned with the student and thrown away in `end`.
        """
        self._student, self._config = student, config
        asked = [] if teacher is None else [teacher, *others]
        self._teachers = [each.eval().requires_grad_(False) for each in asked]
        self._features: dict[FeatureConfig, Features] = {}
        if config.features:
            assert teacher is not None
            _check_same_view(student, teacher)
            self._features = _look_inside(student, teacher, config.features)
            projections = {name: module for kind in self._kinds for name, module in kind.projections.items()}
            student.add_module(PROJECTIONS, nn.ModuleDict(projections))

    def to(self, device: torch.device) -> Lesson:
        """The same, with the teachers on `device`."""
        for teacher in self._teachers:
            teacher.to(device)
        return self

    @property
    def asks(self) -> int:
        """How many teachers are asked for each batch."""
        return len(self._teachers)

    @torch.no_grad()
    def answers(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The teachers' logits float32 [N, K], combined, for this very view: `inputs` as each of them takes it."""
        asked = zip(self._teachers, inputs, strict=True)
        return combined([teacher(view).float() for teacher, view in asked], self._config)

    def loss(
        self,
        logits: torch.Tensor,
        taught: torch.Tensor,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        on_labels: OnLabels,
    ) -> torch.Tensor:
        """alpha * answers + (1 - alpha) * on_labels + sum of weight * feature, all summed over the batch.

        `on_labels` gives the loss on `labels`, where alpha leaves any of it.
        """
        total = answers_and_labels(logits, taught, labels, self._config, on_labels)
        for feature, kind in self._features.items():
            total = total + feature.weight * kind.loss(feature, inputs)
        return total

    def end(self) -> None:
        """Leave the student as it is exported: without hooks and projections."""
        for kind in self._kinds:
            kind.close()
        if hasattr(self._student, PROJECTIONS):
            delattr(self._student, PROJECTIONS)

    @property
    def _kinds(self) -> list[Features]:
        """Each once, in the recipe's order."""
        return list(dict.fromkeys(self._features.values()))


def check_labels(student: Classifier, teacher: Classifier) -> None:
    """Raise UserError, with their names, unless both score the same labels in the same order."""
    ours, theirs = student.spec.labels, teacher.spec.labels
    if ours == theirs:
        return
    lacking, strange = ([label for label in one if label not in two] for one, two in ((ours, theirs), (theirs, ours)))
    parts = [f"it does not know {', '.join(lacking)}"] if lacking else []
    parts += [f"it knows {', '.join(strange)} besides"] if strange else []
    raise UserError(
        f"the teacher '{teacher.spec.model}' was trained for other labels than its student: "
        f"{'; '.join(parts) or 'the same in another order'}",
        "take a teacher that was trained for the data's labels",
    )


def check_features(student: Classifier, teacher: Classifier, features: tuple[FeatureConfig, ...]) -> None:
    """Raise UserError where `features` compare what is not inside both; neither need be trained yet."""
    _check_same_view(student, teacher)
    for kind in dict.fromkeys(_look_inside(student, teacher, features).values()):
        kind.close()


def _look_inside(
    student: Classifier, teacher: Classifier, features: tuple[FeatureConfig, ...]
) -> dict[FeatureConfig, Features]:
    """For each feature the way to it. New projections are the same each time."""
    found: dict[FeatureConfig, Features] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for losses, look in (
            (encoder_features.LOSSES, encoder_features.EncoderFeatures),
            (stage_features.LOSSES, stage_features.StageFeatures),
        ):
            some = tuple(feature for feature in features if feature.loss in losses)
            if some:
                kind: Features = look(student, teacher, some)
                found.update(dict.fromkeys(some, kind))
    return found


def _check_same_view(student: Classifier, teacher: Classifier) -> None:
    if student.preparer().fingerprint() != teacher.preparer().fingerprint():
        raise UserError(
            f"'{student.spec.model}' and its teacher '{teacher.spec.model}' prepare their input in different ways, so "
            "what happens inside them cannot be compared item by item",
            "leave out [[students.distill.features]], or take a student of the teacher's kind: teacher-layers:N",
        )
