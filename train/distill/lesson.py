"""One student's lesson: the teacher is asked, both are looked into, and the losses of the recipe are added up."""

from __future__ import annotations

import torch
from torch import nn

from serve.errors import UserError
from train.classifier import Classifier
from train.distill import encoders
from train.distill.config import DistillConfig, FeatureConfig
from train.distill.inside import Inside, look_inside
from train.distill.logits import answers_loss
from train.front import Mask
from train.losses import cross_entropy
from train.models.teacher_layers import spread

PROJECTIONS = "projections"


class Lesson:
    """What a student is taught. The teacher, in eval mode, is asked for each batch, or it answered in advance."""

    def __init__(self, student: Classifier, teacher: Classifier | None, config: DistillConfig) -> None:
        """`teacher` is None where all its answers are known; looking inside it needs it at each batch.

        Where their widths differ, a projection is learned with the student and thrown away in `end`.
        """
        self._student, self._config = student, config
        self._teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        self._ours: Inside | None = None
        self._theirs: Inside | None = None
        if config.features:
            assert teacher is not None
            _check_same_tokens(student, teacher)
            self._ours, self._theirs = look_inside(student), look_inside(teacher)
            student.add_module(PROJECTIONS, _projections(self._ours, self._theirs, config))

    def to(self, device: torch.device) -> Lesson:
        """The same, with the teacher on `device`."""
        if self._teacher is not None:
            self._teacher.to(device)
        return self

    @torch.no_grad()
    def answers(self, inputs: torch.Tensor) -> torch.Tensor:
        """The teacher's logits float32 [N, K] for this very view."""
        assert self._teacher is not None
        logits: torch.Tensor = self._teacher(inputs)
        return logits.float()

    def loss(
        self,
        logits: torch.Tensor,
        taught: torch.Tensor,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        label_smoothing: float,
    ) -> torch.Tensor:
        """alpha * answers + (1 - alpha) * labels + sum of weight * feature, all summed over the batch."""
        config = self._config
        total = config.alpha * answers_loss(logits, taught, labels, config)
        if config.alpha < 1.0:
            total = total + (1 - config.alpha) * cross_entropy(logits, labels, label_smoothing)
        for feature in config.features:
            total = total + feature.weight * self._feature(feature, inputs)
        return total

    def end(self) -> None:
        """Leave the student as it is exported: without hooks and projections."""
        for inside in (self._ours, self._theirs):
            if inside is not None:
                inside.taps.close()
        if hasattr(self._student, PROJECTIONS):
            delattr(self._student, PROJECTIONS)

    def _feature(self, feature: FeatureConfig, inputs: torch.Tensor) -> torch.Tensor:
        assert self._ours is not None
        assert self._theirs is not None
        pairs = list(enumerate(spread(self._ours.layers, self._theirs.layers)))
        pairs[-1] = (self._ours.layers - 1, self._theirs.layers - 1)  # of a single layer too
        if feature.layers == "last":
            pairs = pairs[-1:]
        losses = [self._pair(feature.loss, ours, theirs, inputs) for ours, theirs in pairs]
        return torch.stack(losses).mean()

    def _pair(self, loss: str, ours: int, theirs: int, inputs: torch.Tensor) -> torch.Tensor:
        """The loss between one layer of the student and the teacher's at the same depth."""
        student, teacher = self._ours, self._theirs
        assert student is not None
        assert teacher is not None
        if loss == "hidden-states":
            mine = getattr(self._student, PROJECTIONS)(student.hidden(ours))
            return encoders.hidden_states(mine, teacher.hidden(theirs), self._mask(inputs, mine))
        if loss == "attention":
            mine = encoders.scores(student.vectors("query", ours), student.vectors("key", ours), student.heads)
            their = encoders.scores(teacher.vectors("query", theirs), teacher.vectors("key", theirs), teacher.heads)
            return encoders.attention(mine, their, self._mask(inputs, student.hidden(ours)))
        mask = self._mask(inputs, student.hidden(ours))
        parts = [
            encoders.relations(student.vectors(part, ours), teacher.vectors(part, theirs), mask)
            for part in ("query", "key", "value")
        ]
        return torch.stack(parts).sum()

    def _mask(self, inputs: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """bool [N, L]: the tokens of texts that are none of padding; all patches of images."""
        if isinstance(self._student.front, Mask):
            return inputs != self._student.front.pad_id
        return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)


def _check_same_tokens(student: Classifier, teacher: Classifier) -> None:
    if student.preparer().fingerprint() != teacher.preparer().fingerprint():
        raise UserError(
            f"'{student.spec.model}' and its teacher '{teacher.spec.model}' prepare their input in different ways, so "
            "what happens inside them cannot be compared item by item",
            "leave out [[students.distill.features]], or take a student of the teacher's kind: teacher-layers:N",
        )


def _projections(ours: Inside, theirs: Inside, config: DistillConfig) -> nn.Module:
    """From the student's width to the teacher's where hidden states are compared and differ in width."""
    compared = any(feature.loss == "hidden-states" for feature in config.features)
    if not compared or ours.width == theirs.width:
        return nn.Identity()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(ours.width, theirs.width)
