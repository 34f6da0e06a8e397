"""Image augmentation on whole batches."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from train.augment.draws import uniform


class ImageAugment(BaseModel):
    """The part of `fit.augment` that is for images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shift: int = Field(default=0, ge=0, le=64)  # pixels, each way; what is uncovered is black
    flip: bool = False  # half of the images, left for right; never on by itself: a mirrored digit is none


def augment_images(images: np.ndarray, config: ImageAugment, seed: int, epoch: int, index: np.ndarray) -> np.ndarray:
    """A new view of `images` uint8 [N, H, W, C], whose rows are the items `index` int64 [N] of the training split."""
    if config.shift:
        span = 2 * config.shift + 1
        dy = (uniform(seed, epoch, index, stream=0) * span).astype(np.int64)
        dx = (uniform(seed, epoch, index, stream=1) * span).astype(np.int64)
        images = _shift(images, dy, dx, config.shift)
    if config.flip:
        mirrored = uniform(seed, epoch, index, stream=2) < 0.5
        images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    return images


def _shift(images: np.ndarray, dy: np.ndarray, dx: np.ndarray, most: int) -> np.ndarray:
    """Cut [H, W] out of each black-padded image at (dy, dx), both in 0..2*most."""
    n, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
    rows = dy[:, None, None] + np.arange(height)[None, :, None]
    columns = dx[:, None, None] + np.arange(width)[None, None, :]
    return padded[np.arange(n)[:, None, None], rows, columns]
