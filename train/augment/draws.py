"""Random numbers for augmentation: what happens to an item depends on (seed, epoch, index) and nothing else,

so a run that was interrupted, or split over more workers, sees the very same views.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


def uniform(seed: int, epoch: int, index: np.ndarray, stream: int) -> np.ndarray:
    """One number in [0, 1) for each item: SplitMix64 (Steele et al. 2014) over (seed, epoch, stream, index)."""
    state = np.uint64(0)
    for part in (seed, epoch, stream):
        state = _mix(np.array([state ^ np.uint64(part)]))[0]
    return (_mix(index.astype(np.uint64) ^ state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(seed: int, epoch: int, index: int, stream: int | None = None) -> np.random.Generator:
    """A generator for one item, where so many numbers are drawn that no one counts them in advance."""
    return np.random.default_rng((seed, epoch, index) if stream is None else (seed, epoch, index, stream))


class Stream(IntEnum):
    """What is drawn for an image. A number is never used again or changed: a resumed run would see other views."""

    SHIFT_Y = 0
    SHIFT_X = 1
    FLIP = 2
    FLIP_VERTICAL = 3
    CROP = 4
    CROP_AREA = 5
    CROP_ASPECT = 6
    CROP_TOP = 7
    CROP_LEFT = 8
    ROTATE = 9
    ROTATE_BY = 10
    SCALE = 11
    SCALE_BY = 12
    BRIGHTNESS = 13
    BRIGHTNESS_BY = 14
    CONTRAST = 15
    CONTRAST_BY = 16
    SATURATION = 17
    SATURATION_BY = 18
    HUE = 19
    HUE_BY = 20
    GRAYSCALE = 21
    BLUR = 22
    BLUR_BY = 23
    NOISE = 24
    RANDAUGMENT = 25
    RANDAUGMENT_SEED = 26
    ERASE = 27
    ERASE_AREA = 28
    ERASE_ASPECT = 29
    ERASE_TOP = 30
    ERASE_LEFT = 31
    MIX_KIND = 32
    MIX = 33
    MIX_PARTNER = 34
    MIX_SHARE = 35
    MIX_TOP = 36
    MIX_LEFT = 37
    ELASTIC = 38
    ELASTIC_FIELD = 39


@dataclass(frozen=True)
class ItemDraws:
    """The numbers of the items `index` int64 [N] of the training split in one epoch, as float64 [N] or as it says."""

    seed: int
    epoch: int
    index: np.ndarray

    def uniform(self, stream: Stream) -> np.ndarray:
        return uniform(self.seed, self.epoch, self.index, stream)

    def between(self, stream: Stream, low: float, high: float) -> np.ndarray:
        return low + self.uniform(stream) * (high - low)

    def happens(self, stream: Stream, probability: float) -> np.ndarray:
        """bool [N]."""
        return self.uniform(stream) < probability

    def generator(self, at: int, stream: Stream | None = None) -> np.random.Generator:
        """For the item in row `at`; one of its own for a `stream`."""
        return generator(self.seed, self.epoch, int(self.index[at]), stream)

    def take(self, rows: np.ndarray) -> ItemDraws:
        """Those of some of the items."""
        return ItemDraws(self.seed, self.epoch, self.index[rows])


def _mix(value: np.ndarray) -> np.ndarray:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
