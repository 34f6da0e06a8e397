from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs
from torch import nn

from serve.errors import UserError
from train.classifier import Classifier, load_classifier, save_classifier
from train.images import pixel_statistics

IMAGES = np.random.default_rng(0).integers(0, 200, (30, 6, 5, 3), dtype=np.uint8)
IMAGES[..., 1] //= 2
LABELS = ("a", "b", "c", "d")


def new(model: str = "builtin:cnn-4", seed: int = 1, **options: float) -> Classifier:
    return image_classifier(IMAGES, LABELS, seed, model, **options).eval()


def test_normalisation_is_the_usual_one_with_the_statistics_of_the_training_images() -> None:
    model = new()
    model.network = nn.Identity()
    mean, std = IMAGES.mean(axis=(0, 1, 2)) / 255, IMAGES.std(axis=(0, 1, 2)) / 255
    expected = ((IMAGES / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert model(torch.from_numpy(IMAGES)).numpy() == pytest.approx(expected, abs=1e-5)


def test_pixel_statistics_of_one_grey_level_do_not_divide_by_zero() -> None:
    mean, std = pixel_statistics(image_inputs(np.full((2, 3, 3, 1), 51, dtype=np.uint8)))
    assert mean == pytest.approx((0.2,))
    assert std == (1 / 255,)


def test_what_was_saved_is_read_back_the_same(tmp_path: Path) -> None:
    model = new(hidden=7, dropout=0.4)
    model.train()(torch.from_numpy(IMAGES))  # batch norm's statistics are part of it
    model.eval()
    save_classifier(model, tmp_path)
    again = load_classifier(tmp_path)
    assert again.spec == model.spec
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(torch.from_numpy(IMAGES)), model(torch.from_numpy(IMAGES)))
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_a_model_that_is_not_there_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained model in"):
        load_classifier(tmp_path)


def test_a_seed_decides_the_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    weights = [new(seed=seed).network.head[1].weight for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_macs_are_the_weights_of_a_perceptron_and_independent_of_dropout() -> None:
    expected = 90 * 64 + 64 * 32 + 32 * 4
    assert new("builtin:mlp-64x32").macs() == expected
    assert new("builtin:mlp-64x32", dropout=0.5).macs() == expected
    assert new("builtin:mlp-64x32").params == expected + 64 + 32 + 4


def test_macs_of_a_convolution_count_every_place() -> None:
    # 6x5 pixels pool to 3x2; then two linear layers
    assert new("builtin:cnn-4", hidden=7).macs() == 30 * 9 * 3 * 4 + 4 * 3 * 2 * 7 + 7 * 4
