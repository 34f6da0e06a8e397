"""Image augmentation on whole batches. What happens to an item depends on (seed, epoch, index) and nothing else,

so a run that was interrupted, or split over more workers, sees the very same pictures.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


class AugmentConfig(BaseModel):
    """[teacher.fit.augment], [students.fit.augment]: nothing by default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shift: int = Field(default=0, ge=0, le=64)  # pixels, each way; what is uncovered is black
    flip: bool = False  # half of the images, left for right; never on by itself: a mirrored digit is none

    @property
    def is_active(self) -> bool:
        """Whether anything is augmented at all."""
        return self != AugmentConfig()


def augment(images: np.ndarray, config: AugmentConfig, seed: int, epoch: int, index: np.ndarray) -> np.ndarray:
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


def uniform(seed: int, epoch: int, index: np.ndarray, stream: int) -> np.ndarray:
    """One number in [0, 1) for each item: SplitMix64 (Steele et al. 2014) over (seed, epoch, stream, index)."""
    state = np.uint64(0)
    for part in (seed, epoch, stream):
        state = _mix(np.array([state ^ np.uint64(part)]))[0]
    return (_mix(index.astype(np.uint64) ^ state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(value: np.ndarray) -> np.ndarray:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _shift(images: np.ndarray, dy: np.ndarray, dx: np.ndarray, most: int) -> np.ndarray:
    """Cut [H, W] out of each black-padded image at (dy, dx), both in 0..2*most."""
    n, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
    rows = dy[:, None, None] + np.arange(height)[None, :, None]
    columns = dx[:, None, None] + np.arange(width)[None, None, :]
    return padded[np.arange(n)[:, None, None], rows, columns]
