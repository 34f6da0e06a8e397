"""Random numbers for augmentation: what happens to an item depends on (seed, epoch, index) and nothing else,

so a run that was interrupted, or split over more workers, sees the very same views.
"""

from __future__ import annotations

import numpy as np


def uniform(seed: int, epoch: int, index: np.ndarray, stream: int) -> np.ndarray:
    """One number in [0, 1) for each item: SplitMix64 (Steele et al. 2014) over (seed, epoch, stream, index)."""
    state = np.uint64(0)
    for part in (seed, epoch, stream):
        state = _mix(np.array([state ^ np.uint64(part)]))[0]
    return (_mix(index.astype(np.uint64) ^ state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """A generator for one item, where so many numbers are drawn that no one counts them in advance."""
    return np.random.default_rng((seed, epoch, index))


def _mix(value: np.ndarray) -> np.ndarray:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
