"""TensorBoard's curves, read back as TensorBoard reads them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs

from serve.errors import UserError
from train.curves import check_tensorboard
from train.epochs import EpochRecord
from train.fit import fit
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.following import Following

GENERATOR = np.random.default_rng(0)
IMAGES, TARGETS = GENERATOR.integers(0, 256, (72, 8, 8, 1), dtype=np.uint8), GENERATOR.integers(0, 4, 72)
TRAIN, VALIDATION = image_inputs(IMAGES, TARGETS), image_inputs(IMAGES[:24], TARGETS[:24])
UPDATES = 5  # of 16 items, in an epoch


class StopError(Exception):
    """In the place of kill -9."""


def trained(folder: Path, curves: Path | None, stop_after: int | None = None) -> tuple[torch.Tensor, FitResult]:
    def stop(record: EpochRecord, epochs: int) -> None:
        if stop_after is not None and record.epoch > stop_after:
            raise StopError

    model = image_classifier(IMAGES, tuple("abcd"), model="builtin:mlp-16", dropout=0.3)
    config = FitConfig(epochs=4, batch_size=16, schedule="linear", warmup=0.0)
    result = fit(model, config, TRAIN, VALIDATION, 5, folder, following=Following(stop, curves=curves))
    return model.network.layers[2].weight.detach(), result


def points(curves: Path) -> dict[str, dict[int, float]]:
    """The values of each curve by step; a step that is there twice fails."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = accumulators.EventAccumulator(str(curves)).Reload()
    found = {}
    for tag in accumulator.Tags()["scalars"]:
        scalars = accumulator.Scalars(tag)
        found[tag] = {scalar.step: scalar.value for scalar in scalars}
        assert len(found[tag]) == len(scalars), tag
    return found


def test_curves_show_every_update_and_epoch_and_change_nothing(tmp_path: Path) -> None:
    plain, _ = trained(tmp_path / "plain", None)
    watched, result = trained(tmp_path / "watched", tmp_path / "curves")
    assert torch.equal(plain, watched)
    found = points(tmp_path / "curves")
    ends = [UPDATES * record.epoch for record in result.epochs]
    assert list(found["epoch/validation_accuracy"]) == list(found["epoch/loss"]) == ends
    for end, record in zip(ends, result.epochs, strict=True):
        assert found["epoch/validation_accuracy"][end] == pytest.approx(record.accuracy)
        assert found["epoch/loss"][end] == pytest.approx(record.loss)
    assert list(found["train/loss"]) == list(found["train/learning_rate"]) == list(range(1, 4 * UPDATES + 1))
    # the epoch's loss is the mean over its updates
    first = [found["train/loss"][step] for step in range(1, UPDATES + 1)]
    assert np.mean(first) == pytest.approx(result.epochs[0].loss, rel=1e-4)
    assert found["train/learning_rate"][10] == pytest.approx(1e-3 * 10 / 20)  # of the next update


def test_a_resumed_training_goes_on_in_the_same_curve(tmp_path: Path) -> None:
    trained(tmp_path / "whole", tmp_path / "expected")
    with pytest.raises(StopError):
        trained(tmp_path / "cut", tmp_path / "curves", stop_after=2)
    assert max(points(tmp_path / "curves")["train/loss"]) == 3 * UPDATES  # the third epoch, which is made again
    trained(tmp_path / "cut", tmp_path / "curves")
    expected, found = points(tmp_path / "expected"), points(tmp_path / "curves")
    assert found.keys() == expected.keys()
    for tag, values in expected.items():
        assert found[tag] == pytest.approx(values), tag


def test_a_new_training_does_not_go_on_in_the_curve_of_an_earlier_one(tmp_path: Path) -> None:
    trained(tmp_path / "one", tmp_path / "curves")
    trained(tmp_path / "two", tmp_path / "curves")
    assert len(points(tmp_path / "curves")["train/loss"]) == 4 * UPDATES
    assert len(list((tmp_path / "curves").iterdir())) == 1


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(UserError, match="needs the package tensorboard") as refused:
        check_tensorboard()
    assert 'pip install "limbeck[tensorboard]"' in refused.value.hint
