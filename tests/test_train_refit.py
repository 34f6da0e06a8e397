"""`fit` until an epoch that is known: the second training of `fit.final_refit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import image_classifier
from tiny_run import weights

from serve.images import ImagePreparer
from serve.manifest import ImagePreprocessing
from train import training as fitting
from train.classifier import Classifier
from train.data import DataConfig, load_data
from train.epochs import EpochRecord
from train.fit import fit
from train.fit_config import FitConfig
from train.following import Following
from train.inputs import ImageInputs

LABELS = tuple("0123456789")
BASE = {"epochs": 4, "batch_size": 64, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def splits() -> tuple[ImageInputs, ImageInputs]:
    data = load_data(DataConfig(source="digits", validation=0.2), seed=0)
    preparer = ImagePreparer(ImagePreprocessing(color="L", size=(8, 8)))
    train, validation = (
        ImageInputs(preparer.prepare(data.splits[name].content[:count]), data.splits[name].labels[:count])
        for name, count in (("train", 300), ("validation", 50))
    )
    return train, validation


def new(train: ImageInputs, dropout: float = 0.0) -> Classifier:
    return image_classifier(train.images, LABELS, hidden=16, dropout=dropout)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"schedule": "one-cycle", "optimizer": "sgd"},
        {"schedule": "step", "step_every": 1},
        {"ema": 0.9},
        {"batch_size": 32, "accumulation": 2, "augment": {"shift": 1}},
        {"patience": 1, "threshold": 0.5},
        {"train_layers": ["*weight"]},
        {"shrink_on_oom": True},
    ],
    ids=str,
)
def test_it_walks_the_way_of_a_whole_training_and_stops(
    splits: tuple[ImageInputs, ImageInputs], tmp_path: Path, asked: dict[str, Any]
) -> None:
    """On the same items, the weights are those that the whole training has after that epoch, its learning rates too."""
    config, passed = FitConfig.model_validate(BASE | asked), {}
    whole = new(splits[0])

    def remember(record: EpochRecord, epochs: int) -> None:
        passed[record.epoch] = {name: value.clone() for name, value in whole.state_dict().items()}

    fit(whole, config, *splits, seed=1, folder=tmp_path / "whole", following=Following(remember))
    stopped = new(splits[0])
    result = fit(stopped, config, splits[0], None, seed=1, folder=tmp_path / "stopped", until=2)
    assert (result.best_epoch, result.epochs) == (2, [])
    same = {name: torch.equal(value, passed[2][name]) for name, value in stopped.state_dict().items()}
    assert all(same.values()), same
    assert not all(torch.equal(value, passed[1][name]) for name, value in stopped.state_dict().items())


class StopError(Exception):
    """In the place of kill -9."""


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("cut", ["refit, epoch 1/3", "refit, epoch 2/3", "refit, epoch 3/3", "saving"])
def test_after_a_stop_it_goes_on_to_the_same_weights(
    splits: tuple[ImageInputs, ImageInputs],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cut: str,
    ema: float | None,
) -> None:
    config = FitConfig.model_validate({**BASE, "ema": ema, "patience": 1})
    fit(new(splits[0], 0.3), config, splits[0], None, seed=1, folder=tmp_path / "whole", until=3)

    def say(text: str) -> None:
        if text.startswith(cut):
            raise StopError

    def no_saving(*_: object) -> None:
        raise StopError

    if cut == "saving":
        monkeypatch.setattr(fitting, "save_classifier", no_saving)
    with pytest.raises(StopError):
        fit(
            new(splits[0], 0.3),
            config,
            splits[0],
            None,
            seed=1,
            folder=tmp_path / "cut",
            following=Following(say=say),
            until=3,
        )
    monkeypatch.undo()
    told: list[str] = []
    fit(
        new(splits[0], 0.3),
        config,
        splits[0],
        None,
        seed=1,
        folder=tmp_path / "cut",
        following=Following(say=told.append),
        until=3,
    )
    # what was told before its checkpoint was written is trained again
    first = {"refit, epoch 1/3": 1, "refit, epoch 2/3": 2, "refit, epoch 3/3": 3, "saving": 4}[cut]
    epochs = [text.split("  ")[0] for text in told if text.startswith("refit")]
    assert epochs == [f"refit, epoch {epoch}/3" for epoch in range(first, 4)]
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert not (tmp_path / "cut" / fitting.CHECKPOINTS).exists()


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"epochs": 0}, "epochs = 0 trains nothing"),
        ({"schedule": "plateau"}, "lowers the learning rate as validation says"),
    ],
)
def test_what_a_refit_cannot_be_combined_with_is_refused(asked: dict[str, Any], why: str) -> None:
    FitConfig.model_validate(asked)
    with pytest.raises(ValueError, match=why):
        FitConfig.model_validate({**asked, "final_refit": True})
