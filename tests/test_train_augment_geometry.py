from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from train.augment import AugmentConfig
from train.augment.draws import ItemDraws, Stream
from train.augment.geometry import elastic_field, flip, warp
from train.augment.images import augment_images as augment

INDEX = np.arange(150)
RAMP = np.stack(np.broadcast_arrays(4 * np.arange(64)[:, None], 4 * np.arange(64)[None, :], 0), axis=-1).astype(
    np.uint8
)
PICTURE = np.random.default_rng(0).integers(0, 256, (1, 9, 9, 3), dtype=np.uint8)


def spans(**options: object) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of crops of 150 images, in shares of the image: top, left, height, width. A pixel tells where it was."""
    views = augment(np.repeat(RAMP[None], len(INDEX), axis=0), AugmentConfig.model_validate(options), 1, 0, INDEX)
    assert views.shape == (150, 64, 64, 3)
    top, left = (views[..., channel].min(axis=(1, 2)) / 256 for channel in (0, 1))
    bottom, right = (views[..., channel].max(axis=(1, 2)) / 256 + 1 / 64 for channel in (0, 1))
    return top, left, bottom - top, right - left


def test_crops_have_the_areas_and_aspects_that_are_asked_for_and_lie_anywhere() -> None:
    top, left, height, width = spans(crop=(0.25, 0.5), crop_aspect=(0.5, 2.0))
    area, aspect = height * width, width / height
    assert 0.22 < area.min() < 0.28 < 0.46 < area.max() < 0.53
    assert 0.45 < aspect.min() < 0.6 < 1.7 < aspect.max() < 2.2
    assert abs(np.median(np.log(aspect))) < 0.2  # as often wide as tall
    for start, size in ((top, height), (left, width)):
        assert start.min() < 0.05
        assert (start + size).max() > 0.95


def test_a_crop_whose_aspect_does_not_fit_takes_the_nearest_that_does() -> None:
    _, _, height, width = spans(crop=(1.0, 1.0), crop_aspect=(3.0, 4.0))
    assert height.tolist() == width.tolist() == [1.0] * 150


def test_flips_go_the_way_they_say() -> None:
    both = np.concatenate([PICTURE, PICTURE])
    chosen = np.array([True, False])
    assert (flip(both, chosen)[0] == PICTURE[0, :, ::-1]).all()
    assert (flip(both, chosen, vertical=True)[0] == PICTURE[0, ::-1]).all()
    assert (flip(both, chosen)[1] == PICTURE[0]).all()


def test_a_quarter_turn_is_clockwise_about_the_centre() -> None:
    turned = warp(PICTURE, np.array([90.0]), np.array([1.0]))
    assert np.abs(turned[0].astype(int) - np.rot90(PICTURE[0], -1)).max() <= 1


def test_zooming_in_makes_things_larger_and_zooming_out_leaves_black() -> None:
    square = np.zeros((2, 32, 32, 1), dtype=np.uint8)
    square[:, 12:20, 12:20] = 200
    small, large = warp(square, np.zeros(2), np.array([0.5, 2.0]))
    assert (small > 100).sum() == pytest.approx(16, abs=4)
    assert (large > 100).sum() == pytest.approx(256, abs=16)
    white = np.full((1, 32, 32, 1), 255, dtype=np.uint8)
    assert (warp(white, np.zeros(1), np.array([0.5]))[0, 0] == 0).all()


def test_turns_and_zooms_reach_both_ends_of_their_range_and_go_no_farther() -> None:
    dot = np.zeros((150, 65, 65, 1), dtype=np.uint8)
    dot[:, 32, 50:53] = 255  # right of the centre, 19 pixels from it
    views = augment(dot, AugmentConfig(rotate=40, scale=(0.5, 1.5)), 1, 0, INDEX)[..., 0].astype(float)
    y, x = ((views * axis).sum(axis=(1, 2)) / views.sum(axis=(1, 2)) for axis in np.mgrid[-32:33, -32:33])
    degrees, zoom = np.degrees(np.arctan2(y, x)), np.hypot(x, y) / 19
    assert -42 < degrees.min() < -36 < 36 < degrees.max() < 42
    assert 0.45 < zoom.min() < 0.55 < 1.45 < zoom.max() < 1.55


def test_a_bent_image_is_what_simards_recipe_gives_by_another_library() -> None:
    draws = ItemDraws(3, 1, np.array([5]))
    image = np.random.default_rng(1).integers(0, 256, (1, 24, 30, 1), dtype=np.uint8)
    moved = elastic_field(draws, np.array([0]), 34.0, 4.0, (24, 30))
    noise = 2 * draws.generator(0, Stream.ELASTIC_FIELD).random((2, 24, 30), dtype=np.float32) - 1
    right, down = (34 * gaussian_filter(part, 4.0, mode="constant") for part in noise)
    assert np.allclose(moved[0], [right, down], atol=1e-4)
    rows, columns = np.mgrid[:24, :30]
    padded = np.pad(image[0, ..., 0].astype(float), 9)  # black beyond the edge, blended into it
    expected = map_coordinates(padded, [rows + down + 9, columns + right + 9], order=1, mode="constant")
    bent = warp(image, np.zeros(1), np.ones(1), moved)[0, ..., 0]
    assert np.abs(bent - expected).max() <= 0.51
    assert (bent != image[0, ..., 0]).mean() > 0.5


def test_bending_is_smooth_and_as_strong_as_it_says() -> None:
    field = elastic_field(ItemDraws(1, 0, np.arange(200)), np.arange(150), 34.0, 4.0, (32, 32))
    assert not field[150:].any()  # the rows that it does not happen to
    inner = field[:150, :, 8:24, 8:24]
    assert inner.std() == pytest.approx(34 * 3**-0.5 / (2 * np.pi**0.5 * 4), rel=0.1)  # of smoothed even noise
    assert abs(inner.mean()) < 0.15
    assert np.abs(np.diff(inner, axis=-1)).max() < inner.std()
    weak = augment(RAMP[None].repeat(150, axis=0), AugmentConfig(elastic=1), 1, 0, INDEX)
    assert np.abs(weak[:, 8:-8, 8:-8].astype(int) - RAMP[8:-8, 8:-8]).max() <= 2
