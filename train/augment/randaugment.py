"""RandAugment (Cubuk et al. 2019, arXiv 1909.13719): some of 14 changes, all of one magnitude. torchvision's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torchvision.transforms import InterpolationMode, v2

from train.augment.geometry import one_by_one

MAGNITUDES = 31


def randaugment(images: np.ndarray, ops: int, magnitude: int, seeds: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`images` uint8 [N, H, W, C], changed `ops` times in these rows, each with its seed of `seeds` int64 [N].

    On grey images the change of colour does nothing. None of the images is written to.
    """
    transform = v2.RandAugment(ops, magnitude, MAGNITUDES, interpolation=InterpolationMode.BILINEAR)

    def change(image: torch.Tensor, row: int) -> torch.Tensor:
        with _drawing_from(int(seeds[row])):
            changed: torch.Tensor = transform(image)
        return changed

    return one_by_one(images, rows.tolist(), change)


@contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """torchvision draws from torch's generator alone: seeded here, and afterwards as if nothing had been drawn.

    `torch.manual_seed` would seed a GPU's generators too, and the model's dropout with them.
    """
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)
