"""`fit.keep`: the weights of the best epoch, or those to which the schedule led."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs
from pydantic import ValidationError

from train.classifier import load_classifier
from train.fit import fit
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.inputs import Inputs

GENERATOR = np.random.default_rng(1)
IMAGES, TARGETS = GENERATOR.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8), GENERATOR.integers(0, 4, 64)
TRAIN, VALIDATION = image_inputs(IMAGES[:44], TARGETS[:44]), image_inputs(IMAGES[44:], TARGETS[44:])
EPOCHS = 6


def trained(
    folder: Path, validation: Inputs | None, until: int | None = None, **settings: Any
) -> tuple[FitResult, torch.Tensor]:
    config = FitConfig(epochs=EPOCHS, batch_size=16, learning_rate=0.01, precision="fp32", **settings)
    result = fit(
        image_classifier(IMAGES, tuple("abcd"), model="builtin:mlp-16"),
        config,
        TRAIN,
        validation,
        0,
        folder,
        until=until,
    )
    return result, torch.cat([value.flatten() for value in load_classifier(folder).state_dict().values()])


@pytest.mark.parametrize("ema", [None, 0.8])
def test_the_last_weights_are_kept_where_the_recipe_says_so(tmp_path: Path, ema: float | None) -> None:
    best, best_weights = trained(tmp_path / "best", VALIDATION, ema=ema)
    last, last_weights = trained(tmp_path / "last", VALIDATION, ema=ema, keep="last")
    _, end = trained(tmp_path / "end", None, until=EPOCHS, ema=ema)
    assert [record.accuracy for record in last.epochs] == [record.accuracy for record in best.epochs]
    assert best.best_epoch < EPOCHS  # labels are noise, so that more training is no better
    assert last.best_epoch == EPOCHS
    assert torch.equal(last_weights, end)
    assert not torch.equal(last_weights, best_weights)


def test_patience_and_the_last_epoch_contradict_each_other() -> None:
    with pytest.raises(ValidationError, match="would keep the last of them"):
        FitConfig(keep="last", patience=2)
