"""Whatever training carries from epoch to epoch survives a stop: it ends as if nothing had stopped it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs

from train.epochs import EpochRecord, Paused
from train.fit import fit
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.following import Following

GENERATOR = np.random.default_rng(0)
LABELS = tuple("abcd")
IMAGES, TARGETS = GENERATOR.integers(0, 256, (72, 8, 8, 1), dtype=np.uint8), GENERATOR.integers(0, 4, 72)
TRAIN, VALIDATION = image_inputs(IMAGES, TARGETS), image_inputs(IMAGES[:24], TARGETS[:24])
SETTINGS: dict[str, dict[str, Any]] = {
    "step": {"schedule": "step", "step_every": 1, "step_factor": 0.5},
    "one-cycle": {"schedule": "one-cycle", "warmup": 0.3},
    "one-cycle with sgd": {"schedule": "one-cycle", "warmup": 0.3, "optimizer": "sgd"},
    # nothing gains half of all, so the rate falls after the second epoch, before the stop, and again after it
    "plateau": {"schedule": "plateau", "step_every": 1, "step_factor": 0.5, "threshold": 0.5, "warmup": 0.3},
    "polynomial": {"schedule": "polynomial"},
    "adam": {"optimizer": "adam"},
    "rmsprop": {"optimizer": "rmsprop"},
    "adagrad": {"optimizer": "adagrad"},
    "adafactor": {"optimizer": "adafactor"},
    "ema": {"ema": 0.9},
    "unfreeze": {"unfreeze": 1},
    "layer decay": {"layer_decay": 0.5},
}


class StopError(Exception):
    """In the place of kill -9."""


def trained(
    folder: Path, config: FitConfig, stop_after: int | None = None
) -> tuple[dict[str, torch.Tensor], FitResult]:
    def stop(record: EpochRecord, epochs: int) -> None:
        if stop_after is not None and record.epoch > stop_after:
            raise StopError

    model = image_classifier(IMAGES, LABELS, model="builtin:mlp-16x12", dropout=0.3)
    result = fit(model, config, TRAIN, VALIDATION, 5, folder, following=Following(stop))
    return model.state_dict(), result


@pytest.mark.parametrize("name", SETTINGS)
def test_a_stopped_training_ends_with_the_same_weights(tmp_path: Path, name: str) -> None:
    config = FitConfig(**{"epochs": 4, "batch_size": 16, "learning_rate": 1e-2, **SETTINGS[name]})
    expected, whole = trained(tmp_path / "whole", config)
    with pytest.raises(StopError):
        trained(tmp_path / "cut", config, stop_after=2)
    found, resumed = trained(tmp_path / "cut", config)
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key
    timeless = [[(epoch.epoch, epoch.loss, epoch.accuracy) for epoch in result.epochs] for result in (whole, resumed)]
    assert timeless[0] == timeless[1]


def test_a_paused_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    config = FitConfig(epochs=4, batch_size=16, learning_rate=1e-2)
    expected, _ = trained(tmp_path / "whole", config)
    seen = []
    for after in (1, 1, 3):  # asked for the same again, it does no more
        model = image_classifier(IMAGES, LABELS, model="builtin:mlp-16x12", dropout=0.3)
        with pytest.raises(Paused) as left:
            fit(
                model,
                config,
                TRAIN,
                VALIDATION,
                5,
                tmp_path / "cut",
                following=Following(pause=lambda record, after=after: record.epoch == after),  # type: ignore[misc]
            )
        seen.append([record.epoch for record in left.value.records])
    found, result = trained(tmp_path / "cut", config)
    assert seen == [[1], [1], [1, 2, 3]]
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    assert len(result.epochs) == 4


def test_the_last_epoch_is_no_pause(tmp_path: Path) -> None:
    model = image_classifier(IMAGES, LABELS, model="builtin:mlp-16x12", dropout=0.3)
    config = FitConfig(epochs=1, batch_size=16)
    result = fit(model, config, TRAIN, VALIDATION, 5, tmp_path / "model", following=Following(pause=lambda _: True))
    assert len(result.epochs) == 1
