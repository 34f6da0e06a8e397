"""[teacher.fit] and [students.fit] of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from train.augment import AugmentConfig
from train.precision import Wish


class FitConfig(BaseModel):
    """[teacher.fit], [students.fit]: how long and how to train."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=20, ge=0)  # 0: take a model that is trained already as it is
    batch_size: int = Field(default=128, ge=1)
    accumulation: int = Field(default=1, ge=1)  # micro-batches of batch_size in one update
    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd: Nesterov momentum 0.9
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)  # not on norms and biases
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1)  # share of all updates
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip: float = Field(default=1.0, ge=0)  # largest norm of the gradient; 0: none
    patience: int | None = Field(default=None, ge=1)  # epochs without a better validation accuracy
    precision: Wish = "auto"  # bf16 where the machine multiplies it and the model is large enough; "fp16" on a GPU only
    augment: AugmentConfig = AugmentConfig()
