from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from train.augment import AugmentConfig, colours
from train.augment.draws import ItemDraws
from train.augment.images import augment_images as augment

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 9, 7, 3), dtype=np.uint8)
FACTORS = np.array([0.0, 0.4, 1.0, 1.3, 1.9, 1.0])
INDEX = np.arange(200)


def flat(*colour: int) -> np.ndarray:
    """200 images of 4 x 4 pixels, all of this colour."""
    return np.full((200, 4, 4, len(colour)), colour, dtype=np.uint8)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (colours.brightness, F.adjust_brightness),
        (colours.contrast, F.adjust_contrast),
        (colours.saturation, F.adjust_saturation),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_strength_for_each_image_is_what_torchvision_does_to_one(
    ours: Callable[[np.ndarray, np.ndarray], np.ndarray],
    theirs: Callable[[torch.Tensor, float], torch.Tensor],
    channels: int,
) -> None:
    pictures = PICTURES[..., :channels]
    changed = ours(pictures, FACTORS)
    for picture, view, factor in zip(pictures, changed, FACTORS.tolist(), strict=True):
        expected = theirs(torch.from_numpy(picture).permute(2, 0, 1), factor).permute(1, 2, 0).numpy()
        assert np.abs(view.astype(int) - expected).max() <= 1  # we round, torchvision cuts off
    assert (changed[FACTORS == 1] == pictures[FACTORS == 1]).all()


def test_strengths_are_spread_evenly_over_their_range() -> None:
    bright = augment(flat(100), AugmentConfig(brightness=0.4), 1, 0, INDEX)[:, 0, 0, 0]
    assert 60 <= bright.min() < 64
    assert 136 < bright.max() <= 140
    assert bright.mean() == pytest.approx(100, abs=4)


def test_half_a_turn_of_hue_makes_red_cyan_and_leaves_grey_alone() -> None:
    turned = colours.hue(np.concatenate([flat(200, 0, 0)[:1], flat(90, 90, 90)[:1]]), np.array([0.5, 0.5]))
    assert np.abs(turned[0, 0, 0].astype(int) - [0, 200, 200]).max() <= 2
    assert np.abs(turned[1].astype(int) - 90).max() <= 1


def test_grey_has_three_equal_channels_of_the_same_luminance() -> None:
    grey = colours.grayscale(PICTURES, np.arange(6) < 3)
    assert (grey[:3] == grey[:3, ..., :1]).all()
    assert np.abs(grey[:3, ..., 0] - PICTURES[:3] @ [0.299, 0.587, 0.114]).max() <= 1
    assert (grey[3:] == PICTURES[3:]).all()


def test_blur_spreads_a_point_as_wide_as_it_says() -> None:
    point = np.zeros((1, 33, 33, 1), dtype=np.uint8)
    point[0, 12:21, 16] = 255  # a line, across which the blur is measured
    profile = colours.blur(point, np.array([2.0]))[0, 16, :, 0].astype(float)
    place = np.arange(33)
    assert (profile * place).sum() / profile.sum() == pytest.approx(16, abs=0.1)
    assert np.sqrt((profile * (place - 16) ** 2).sum() / profile.sum()) == pytest.approx(2, abs=0.2)


def test_noise_has_the_deviation_that_is_asked_for_and_is_not_the_same_in_all_channels() -> None:
    grain = augment(flat(128, 128, 128), AugmentConfig(noise=10), 1, 0, INDEX).astype(float) - 128
    assert grain.std() == pytest.approx(10, rel=0.05)
    assert grain.mean() == pytest.approx(0, abs=0.5)
    assert np.abs(np.corrcoef(grain.reshape(-1, 3).T) - np.eye(3)).max() < 0.1
    white = colours.noise(flat(255), 30, np.ones(200, dtype=bool), ItemDraws(1, 0, INDEX))
    assert 0.4 < (white == 255).mean() < 0.6  # half of the noise would be brighter than white
