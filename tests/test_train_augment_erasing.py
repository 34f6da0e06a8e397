from __future__ import annotations

import numpy as np
import pytest

from train.augment import AugmentConfig
from train.augment.images import augment_images as augment

INDEX = np.arange(200)
HALVES = np.zeros((200, 40, 30, 3), dtype=np.uint8)
HALVES[:, :20] = 201  # the mean is 100.5, which no pixel has


def covered(**options: object) -> tuple[np.ndarray, np.ndarray]:
    """The views, and where they are covered, bool [N, H, W]."""
    views = augment(HALVES, AugmentConfig.model_validate({"erase": 1.0, "erase_with": "mean", **options}), 1, 0, INDEX)
    return views, (views != HALVES).any(axis=-1)


def test_one_box_of_such_an_area_and_aspect_is_covered_by_the_images_mean() -> None:
    views, hidden = covered(erase_area=(0.1, 0.3), erase_aspect=(0.5, 2.0))
    assert set(views[hidden].ravel()) == {100}
    height, width = hidden.any(axis=2).sum(axis=1), hidden.any(axis=1).sum(axis=1)
    assert (hidden.sum(axis=(1, 2)) == height * width).all()
    area, aspect = height * width / 1200, width / height
    assert 0.09 < area.min() < 0.12 < 0.28 < area.max() < 0.32
    assert 0.42 < aspect.min() < 0.6 < 1.7 < aspect.max() < 2.3
    assert hidden.any(axis=(0, 2))[[0, -1]].all()  # anywhere, up to the edges
    assert hidden.any(axis=(0, 1))[[0, -1]].all()


def test_noise_has_any_value_and_black_is_black() -> None:
    noisy, hidden = covered(erase_with="noise", erase_area=(0.3, 0.3))
    values = noisy[hidden]
    assert values.mean() == pytest.approx(127.5, abs=3)
    assert np.bincount(values.ravel(), minlength=256).min() > 0
    black, _ = covered(erase_with="black", erase_area=(0.3, 0.3))
    assert set(np.unique(black)) == {0, 201}
    assert (black == 201).sum() < (HALVES == 201).sum() * 0.85


def test_noise_that_covers_is_not_the_noise_of_the_image() -> None:
    options = {"erase_area": (1.0, 1.0), "erase_aspect": (0.75, 0.75), "erase_with": "noise"}
    box, _ = covered(**options)
    grain = augment(np.full_like(HALVES, 128), AugmentConfig(noise=20), 1, 0, INDEX)
    assert abs(np.corrcoef(box[:20].ravel(), grain[:20].ravel())[0, 1]) < 0.02
