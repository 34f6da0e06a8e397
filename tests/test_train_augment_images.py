from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import kstest
from torch.utils.data import DataLoader

from serve.errors import UserError
from train.augment import AugmentConfig
from train.augment.draws import uniform
from train.augment.images import augment_images as augment
from train.inputs import ImageInputs
from train.views import View, as_batch

IMAGES = np.random.default_rng(0).integers(1, 256, (400, 6, 9, 3), dtype=np.uint8)
INDEX = np.arange(400)
SHIFT = AugmentConfig(shift=2)
GRADIENT = np.linspace(40, 200, 12)[:, None, None] + np.linspace(-30, 30, 10)[None, :, None] + np.array([20, 0, -20])
PHOTOS = (GRADIENT + np.random.default_rng(1).normal(0, 4, (16, 12, 10, 3))).clip(0, 255).astype(np.uint8)
ROWS = np.arange(16)
OPTIONS: dict[str, dict[str, Any]] = {
    "crop": {"crop": (0.25, 0.9)},
    "shift": {"shift": 3},
    "flip": {"flip": True},
    "flip_vertical": {"flip_vertical": True},
    "rotate": {"rotate": 30},
    "scale": {"scale": (0.5, 1.5)},
    "elastic": {"elastic": 200},
    "randaugment": {"randaugment": 2},
    "brightness": {"brightness": 0.5},
    "contrast": {"contrast": 0.9},
    "saturation": {"saturation": 0.9},
    "hue": {"hue": 0.3},
    "grayscale": {"grayscale": 0.5},
    "blur": {"blur": 2.0},
    "noise": {"noise": 10},
    "erase": {"erase": 0.7},
    "mixup": {"mixup": 0.5},
    "cutmix": {"cutmix": 1.0},
}
ALL = AugmentConfig(**{name: value for option in OPTIONS.values() for name, value in option.items()})


def view(config: AugmentConfig, epoch: int = 0, seed: int = 1) -> View:
    """The photographs, each of a class of its own."""
    photos = View(ImageInputs(PHOTOS, ROWS), config, seed, classes=len(ROWS))
    photos.epoch = epoch
    return photos


def seen(rows: list[int], config: AugmentConfig, epoch: int = 0, seed: int = 1) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in view(config, epoch, seed).__getitems__(rows).items()}


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


@pytest.mark.parametrize("option", OPTIONS)
def test_what_happens_to_an_item_depends_on_nothing_but_seed_epoch_and_index(option: str) -> None:
    config, before = AugmentConfig(**OPTIONS[option]), PHOTOS.copy()
    whole = seen(ROWS.tolist(), config, epoch=2)
    for rows in (ROWS[::-1].tolist(), [7, 3, 11], *[[row] for row in range(5)]):
        part = seen(rows, config, epoch=2)
        assert part.keys() == whole.keys()
        assert all((values == whole[name][rows]).all() for name, values in part.items())
    assert (before == PHOTOS).all()
    for other in (PHOTOS, seen(ROWS.tolist(), config, epoch=3)["inputs"], seen(ROWS.tolist(), config, 2, 2)["inputs"]):
        assert (whole["inputs"] != other).any(axis=(1, 2, 3)).mean() > 0.15


def test_large_images_are_changed_a_few_at_a_time_and_come_out_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = augment(PHOTOS, ALL, seed=1, epoch=0, index=ROWS)
    monkeypatch.setattr("train.augment.images._CHUNK_BYTES", 3 * PHOTOS[0].nbytes)
    assert (augment(PHOTOS, ALL, seed=1, epoch=0, index=ROWS) == whole).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_views_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    whole = seen(ROWS.tolist(), ALL)
    loader = DataLoader(view(ALL), batch_size=3, sampler=ROWS[::-1].tolist(), collate_fn=as_batch, num_workers=workers)
    for number, batch in enumerate(loader):
        rows = ROWS[::-1][3 * number : 3 * number + 3]
        assert all((tensor.numpy() == whole[name][rows]).all() for name, tensor in batch.items())
    again = pickle.loads(pickle.dumps(view(ALL)))  # where workers are new processes, it travels like this
    assert (again.__getitems__([4])["inputs"].numpy() == whole["inputs"][4]).all()


@pytest.mark.parametrize("option", [name for name in OPTIONS if name not in ("shift", "mixup", "cutmix")])
def test_so_many_of_the_images_are_changed_and_the_others_left_alone(option: str) -> None:
    """Where an image is left alone by other means than chance, strengths are so even that it is rare."""
    config = OPTIONS[option] | {"probability": {option: 0.3}}
    if option in ("grayscale", "erase"):
        config = {option: 0.3}
    many = np.repeat(PHOTOS, 25, axis=0)
    changed = (augment(many, AugmentConfig(**config), 1, 0, np.arange(400)) != many).any(axis=(1, 2, 3))
    assert 0.2 < changed.mean() < 0.4


@pytest.mark.parametrize("option", ["saturation", "hue", "grayscale"])
def test_colours_of_grey_images_are_refused_by_name(option: str) -> None:
    grey, config = PHOTOS[..., :1], AugmentConfig(**OPTIONS[option])
    with pytest.raises(UserError, match=f"fit.augment.{option} changes colours"):
        View(ImageInputs(grey, ROWS), config, seed=1)
    with pytest.raises(UserError, match=f"fit.augment.{option} changes colours"):
        augment(grey, config, 1, 0, ROWS)


@pytest.mark.parametrize("option", [name for name in OPTIONS if name not in ("saturation", "hue", "grayscale")])
def test_all_else_works_on_grey_images_of_one_pixel_too(option: str) -> None:
    config = AugmentConfig(**OPTIONS[option])
    assert augment(PHOTOS[..., :1], config, 1, 0, ROWS).shape == (16, 12, 10, 1)
    assert augment(PHOTOS[:, :1, :1, :1], config, 1, 0, ROWS).shape == (16, 1, 1, 1)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"crop": (0.9, 0.2)}, "the least and the most"),
        ({"crop": (0.0, 0.5)}, "greater than 0"),
        ({"erase_area": (0.1, 0.2)}, "erase_area goes with erase"),
        ({"elastic_sigma": 5}, "elastic_sigma goes with elastic, which is not asked for"),
        ({"crop_aspect": (1, 1)}, "crop_aspect goes with crop"),
        ({"rotate": 9, "probability": {"flip": 0.2}}, "probability.flip is set, but flip is not asked for"),
        ({"hue": 0.6}, "less than or equal to 0.5"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        AugmentConfig(**given)


def test_what_is_asked_for_survives_being_written_down() -> None:
    config = AugmentConfig(crop=(0.3, 1.0), crop_aspect=(1, 1), flip=True, probability={"flip": 0.2})
    assert AugmentConfig.model_validate_json(config.model_dump_json()) == config
    assert set(config.model_dump()) == {"crop", "crop_aspect", "shift", "flip", "probability", "delete", "swap"}


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
