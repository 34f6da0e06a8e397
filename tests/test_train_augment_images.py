from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from train.augment import AugmentConfig
from train.augment.draws import uniform
from train.augment.images import augment_images as augment

IMAGES = np.random.default_rng(0).integers(1, 256, (400, 6, 9, 3), dtype=np.uint8)
INDEX = np.arange(400)
SHIFT = AugmentConfig(shift=2)


def moves(images: np.ndarray, views: np.ndarray, most: int) -> list[tuple[int, int]]:
    """How far each view is moved, found by trying every shift; what is uncovered must be black."""
    found = []
    for image, view in zip(images, views, strict=True):
        padded = np.pad(image, ((most, most), (most, most), (0, 0)))
        height, width, _ = image.shape
        span = range(2 * most + 1)
        places = [(y, x) for y in span for x in span if (padded[y : y + height, x : x + width] == view).all()]
        assert len(places) == 1
        found.append((places[0][0] - most, places[0][1] - most))
    return found


def test_shifts_reach_every_place_within_their_range_and_none_beyond() -> None:
    found = moves(IMAGES, augment(IMAGES, SHIFT, seed=1, epoch=0, index=INDEX), most=2)
    assert set(found) == {(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)}


def test_a_view_depends_on_seed_epoch_and_index() -> None:
    first = augment(IMAGES, SHIFT, seed=1, epoch=0, index=INDEX)
    for seed, epoch, index in ((2, 0, INDEX), (1, 1, INDEX), (1, 0, INDEX + 400), (0, 1, INDEX)):
        same = (augment(IMAGES, SHIFT, seed, epoch, index) == first).all(axis=(1, 2, 3))
        assert same.mean() < 0.15  # one place of 25 is the same by chance


def test_a_view_does_not_depend_on_its_batch() -> None:
    whole = augment(IMAGES, SHIFT, seed=1, epoch=3, index=INDEX)
    rows = np.random.default_rng(1).permutation(400)[:57]
    assert (augment(IMAGES[rows], SHIFT, seed=1, epoch=3, index=rows) == whole[rows]).all()
    assert (augment(IMAGES[5:6], SHIFT, seed=1, epoch=3, index=np.array([5])) == whole[5:6]).all()


def test_without_augmentation_images_pass_unchanged_and_the_originals_are_never_written_to() -> None:
    before = IMAGES.copy()
    assert (augment(IMAGES, AugmentConfig(), seed=1, epoch=0, index=INDEX) == before).all()
    augment(IMAGES, SHIFT, seed=1, epoch=0, index=INDEX)
    assert (before == IMAGES).all()


def test_about_half_of_the_images_are_flipped_and_the_others_left_alone() -> None:
    views = augment(IMAGES, AugmentConfig(flip=True), seed=1, epoch=0, index=INDEX)
    mirrored = (views == IMAGES[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (views == IMAGES).all(axis=(1, 2, 3))).all()
    assert 0.4 < mirrored.mean() < 0.6


@pytest.mark.parametrize(("seed", "epoch", "stream"), [(0, 0, 0), (0, 0, 1), (7, 3, 0), (2**32 - 1, 199, 1)])
def test_numbers_are_uniform(seed: int, epoch: int, stream: int) -> None:
    drawn = uniform(seed, epoch, np.arange(20_000), stream)
    assert 0 <= drawn.min() < 0.001
    assert 0.999 < drawn.max() < 1
    assert kstest(drawn, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.03


def test_streams_and_epochs_are_unrelated() -> None:
    index = np.arange(20_000)
    drawn = [uniform(5, epoch, index, stream) for epoch in range(3) for stream in range(2)]
    correlations = np.corrcoef(drawn) - np.eye(6)
    assert np.abs(correlations).max() < 0.03
