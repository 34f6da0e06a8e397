"""[students.distill] of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FeatureLoss = Literal["hidden-states", "attention", "relations"]


class FeatureConfig(BaseModel):
    """[[students.distill.features]]: a loss on what happens inside, added to the one on the answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    loss: FeatureLoss
    weight: float = Field(gt=0)
    layers: Literal["all", "last"] = "all"  # of the student; each is paired with the teacher's at the same depth


class DistillConfig(BaseModel):
    """[students.distill]: how the student learns from the teacher."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["soft-targets"] = "soft-targets"
    temperature: float = Field(default=4.0, gt=0)
    alpha: float = Field(default=0.9, gt=0, le=1)  # share of the teacher; 1 - alpha stays with the labels
    features: tuple[FeatureConfig, ...] = ()
