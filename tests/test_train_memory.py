"""Memory that runs out, asked of torch's real allocator, which has less than it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs
from torch import nn

from serve.errors import UserError
from train.classifier import Classifier
from train.fit import fit
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.following import Following
from train.memory import is_out_of_memory, within_memory

GENERATOR = np.random.default_rng(0)
IMAGES, TARGETS = GENERATOR.integers(0, 256, (48, 8, 8, 1), dtype=np.uint8), GENERATOR.integers(0, 4, 48)
TRAIN, VALIDATION = image_inputs(IMAGES, TARGETS), image_inputs(IMAGES[:20], TARGETS[:20])


def greedy(most: int, kind: str = "builtin:mlp-16", side: int = 8) -> Classifier:
    """A classifier whose training takes more memory than there is for more than so many items."""
    model = image_classifier(IMAGES[:, :side, :side], tuple("abcd"), model=kind)

    def ask(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if module.training and len(inputs[0]) > most:
            torch.empty(2**60, dtype=torch.uint8)

    model.register_forward_pre_hook(ask)
    return model


def trained(folder: Path, model: Classifier, **settings: object) -> FitResult:
    config = FitConfig.model_validate({"epochs": 2, "optimizer": "sgd", "learning_rate": 0.05, **settings})
    return fit(model, config, TRAIN, VALIDATION, 5, folder)


def test_memory_that_runs_out_is_told_with_the_settings_that_mend_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"memory ran out while training with fit\.batch_size = 16") as told:
        trained(tmp_path, greedy(8), batch_size=16, accumulation=2)
    assert "fit.batch_size = 8 and fit.accumulation = 4" in told.value.hint
    assert "or fit.shrink_on_oom = true" in told.value.hint


def test_smaller_micro_batches_make_the_same_updates(tmp_path: Path) -> None:
    expected = image_classifier(IMAGES, tuple("abcd"), model="builtin:mlp-16")
    trained(tmp_path / "whole", expected, batch_size=16)
    model = greedy(4)
    result = trained(tmp_path / "shrunk", model, batch_size=16, shrink_on_oom=True)
    assert (result.batch_size, result.accumulation) == (4, 4)
    for name, value in expected.state_dict().items():
        assert torch.allclose(value, model.state_dict()[name], atol=1e-6), name


def test_batch_norm_sees_less_in_halved_batches_and_that_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    config = FitConfig(epochs=1, batch_size=16, shrink_on_oom=True)
    following = Following(say=said.append)
    result = fit(greedy(8, "builtin:resnet8"), config, TRAIN, VALIDATION, 5, tmp_path, following=following)
    assert (
        "memory ran out: fit.batch_size 16 -> 8, the same updates but for batch norm, which sees as many items" in said
    )
    (note,) = [note for note in result.notes if "batch norm" in note]
    assert "micro-batches of 16: batch norm normalised 8 items at a time" in note


def test_batch_norm_that_cannot_see_a_lone_item_ends_the_halving(tmp_path: Path) -> None:
    train, validation = (image_inputs(split.images[:, :4, :4], split.labels) for split in (TRAIN, VALIDATION))
    config = FitConfig(epochs=1, batch_size=2, shrink_on_oom=True)
    with pytest.raises(UserError, match=r"batch_size = 1 cannot train 'builtin:resnet8'"):
        fit(greedy(1, "builtin:resnet8", side=4), config, train, validation, 5, tmp_path)


def test_a_batch_without_a_half_is_the_end(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fit\.batch_size = 3") as told:
        trained(tmp_path, greedy(1), batch_size=12, shrink_on_oom=True)
    assert "smaller fit.batch_size" in told.value.hint


def test_other_errors_are_none_of_memory() -> None:
    def fail(config: FitConfig) -> FitResult:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        within_memory(FitConfig(shrink_on_oom=True), fail, print, nn.Linear(1, 1))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
