"""A convolutional student learns from inside a convolutional teacher: losses of `maps` at the ends of stages."""

from __future__ import annotations

import torch
from torch import nn

from train.classifier import Classifier
from train.distill import maps
from train.distill.config import FeatureConfig
from train.distill.pairs import chosen_pairs
from train.distill.stages import pair_stages, tap_stages

LOSSES = ("hints", "attention-maps")


class StageFeatures:
    """Student and teacher, tapped. `projections` hold FitNets' regressors, learned with the student and thrown away."""

    def __init__(self, student: Classifier, teacher: Classifier, features: tuple[FeatureConfig, ...]) -> None:
        """Raises UserError for networks without stages, and for stages that they do not have."""
        self._ours, self._theirs = tap_stages(student), tap_stages(teacher)
        ours, theirs = self._ours.stages, self._theirs.stages
        default = pair_stages(ours, theirs)
        self._pairs = {
            feature: chosen_pairs(feature, default, len(ours), len(theirs), "stages") for feature in features
        }
        self.projections = nn.ModuleDict(
            {
                _name(mine, its): _regressor(ours[mine].channels, theirs[its].channels)
                for feature in features
                for mine, its in self._pairs[feature]
                if feature.loss == "hints"
            }
        )

    def loss(self, feature: FeatureConfig, inputs: torch.Tensor) -> torch.Tensor:
        """One feature's loss in the last pass, the mean over its pairs of stages, summed over the items."""
        return torch.stack([self._pair(feature, mine, its) for mine, its in self._pairs[feature]]).mean()

    def close(self) -> None:
        """Take the hooks off."""
        self._ours.taps.close()
        self._theirs.taps.close()

    def _pair(self, feature: FeatureConfig, mine: int, its: int) -> torch.Tensor:
        student, teacher = self._ours.map(mine), self._theirs.map(its)
        if feature.loss == "attention-maps":
            return maps.attention_maps(student, teacher)
        return maps.hints(self.projections[_name(mine, its)](student), teacher)


def _name(mine: int, its: int) -> str:
    return f"stage{mine}to{its}"


def _regressor(ours: int, theirs: int) -> nn.Module:
    """From the student's channels to the teacher's, where they differ; the paper's, made as small as can be."""
    return nn.Identity() if ours == theirs else nn.Conv2d(ours, theirs, 1)
