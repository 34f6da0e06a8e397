from __future__ import annotations

import numpy as np
import torch
from torchvision.transforms import InterpolationMode, v2

from train.augment.randaugment import randaugment

PICTURES = np.random.default_rng(0).integers(0, 256, (30, 12, 12, 3), dtype=np.uint8)
ROWS, SEEDS = np.arange(30), np.arange(30) + 2**40


def test_it_is_torchvisions_with_a_seed_for_each_image() -> None:
    views = randaugment(PICTURES, 2, 9, SEEDS, ROWS)
    theirs = v2.RandAugment(2, 9, interpolation=InterpolationMode.BILINEAR)
    with torch.random.fork_rng(devices=[]):
        for picture, view, seed in zip(PICTURES[:8], views, SEEDS.tolist(), strict=False):
            torch.manual_seed(seed)
            assert (theirs(torch.from_numpy(picture).permute(2, 0, 1)).permute(1, 2, 0).numpy() == view).all()
    assert len({view.tobytes() for view in randaugment(PICTURES[:1].repeat(30, axis=0), 2, 9, SEEDS, ROWS)}) > 15


def test_who_draws_from_torch_besides_notices_nothing() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    randaugment(PICTURES[:3], 2, 9, SEEDS, ROWS[:3])
    assert torch.equal(torch.rand(4), expected)


def test_a_greater_magnitude_changes_more() -> None:
    little, much = (
        np.abs(randaugment(PICTURES, 1, magnitude, SEEDS, ROWS).astype(int) - PICTURES).mean() for magnitude in (2, 25)
    )
    assert little < much
