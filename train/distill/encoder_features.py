"""A transformer student learns from inside a transformer teacher: which losses of `encoders`, between which layers."""

from __future__ import annotations

import torch
from torch import nn

from serve.errors import UserError
from train.classifier import Classifier
from train.distill import encoders
from train.distill.config import FeatureConfig
from train.distill.inside import look_inside
from train.distill.pairs import Pairs, chosen_pairs
from train.front import Mask
from train.models.teacher_layers import spread

LOSSES = ("hidden-states", "attention", "relations", "embeddings")


class EncoderFeatures:
    """Student and teacher, tapped. `projections` hold what is learned with the student and thrown away."""

    def __init__(self, student: Classifier, teacher: Classifier, features: tuple[FeatureConfig, ...]) -> None:
        """Raises UserError for models without such layers, and for layers that they do not have."""
        self._front, self._taken = student.front, student.layers
        self._ours, self._theirs = look_inside(student), look_inside(teacher)
        self._pairs = {feature: self._chosen(feature) for feature in features}
        check_heads(features, (student.spec.model, self._ours.heads), (teacher.spec.model, self._theirs.heads))
        widths = (self._ours.width, self._theirs.width)
        wanted = {feature.loss for feature in features} & {"hidden-states", "embeddings"}
        self.projections = nn.ModuleDict({loss: _projection(*widths) for loss in sorted(wanted)})

    def loss(self, feature: FeatureConfig, inputs: torch.Tensor) -> torch.Tensor:
        """One feature's loss in the last pass, the mean over its pairs of layers, summed over the items."""
        mask = self._mask(inputs)
        if feature.loss == "embeddings":
            return encoders.hidden_states(
                self._projected(feature, self._ours.embedded()), self._theirs.embedded(), mask
            )
        return torch.stack([self._pair(feature, ours, theirs, mask) for ours, theirs in self._pairs[feature]]).mean()

    def close(self) -> None:
        """Take the hooks off."""
        self._ours.taps.close()
        self._theirs.taps.close()

    def _chosen(self, feature: FeatureConfig) -> Pairs:
        ours, theirs = self._ours.layers, self._theirs.layers
        taken = self._taken
        if taken is None or taken.of != theirs:  # to another teacher the numbers mean other layers
            pairs = list(enumerate(spread(ours, theirs)))
        else:
            pairs = list(enumerate(taken.numbers))
        pairs[-1] = (ours - 1, theirs - 1)  # of a single layer too
        return chosen_pairs(feature, pairs, ours, theirs, "layers")

    def _pair(self, feature: FeatureConfig, ours: int, theirs: int, mask: torch.Tensor) -> torch.Tensor:
        """The loss between a layer of the student and one of the teacher."""
        student, teacher = self._ours, self._theirs
        if feature.loss == "hidden-states":
            return encoders.hidden_states(self._projected(feature, student.hidden(ours)), teacher.hidden(theirs), mask)
        if feature.loss == "attention":
            mine = encoders.scores(student.vectors("query", ours), student.vectors("key", ours), student.heads)
            their = encoders.scores(teacher.vectors("query", theirs), teacher.vectors("key", theirs), teacher.heads)
            return encoders.attention(mine, their, mask)
        parts = [
            encoders.relations(student.vectors(part, ours), teacher.vectors(part, theirs), mask)
            for part in ("query", "key", "value")
        ]
        return torch.stack(parts).sum()

    def _projected(self, feature: FeatureConfig, vectors: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.projections[feature.loss](vectors)
        return projected

    def _mask(self, inputs: torch.Tensor) -> torch.Tensor:
        """bool [N, L]: the tokens of texts that are none of padding; all patches of images."""
        if isinstance(self._front, Mask):
            return inputs != self._front.pad_id
        return torch.ones(self._ours.hidden(0).shape[:2], dtype=torch.bool, device=inputs.device)


def check_heads(features: tuple[FeatureConfig, ...], ours: tuple[str, int], theirs: tuple[str, int]) -> None:
    """Raise UserError where the attention of a student and a teacher, by name and number of heads, is no like pair."""
    if any(feature.loss == "attention" for feature in features) and ours[1] != theirs[1]:
        raise UserError(
            f"loss = 'attention' compares head by head, but '{ours[0]}' has {ours[1]} heads and its teacher "
            f"'{theirs[0]}' {theirs[1]}",
            "take loss = 'relations', which compares any number of heads",
        )


def _projection(ours: int, theirs: int) -> nn.Module:
    """From the student's width to the teacher's, where they differ: W_h and W_e of TinyBERT."""
    return nn.Identity() if ours == theirs else nn.Linear(ours, theirs)
