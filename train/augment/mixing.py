"""Mixup (Zhang et al. 2017, arXiv 1710.09412) and CutMix (Yun et al. 2019, arXiv 1905.04899).

Elsewhere an item is mixed with another of its batch, with one share for all. Here its partner is any other item of the
training split, as that one looks in this epoch, and the share is the item's own: both depend on (seed, epoch, index)
alone, like all else in `train.augment`. So accumulation, the number of workers and a resume change nothing. The price
is that partners are gathered and augmented too. N items, K classes.
"""

from __future__ import annotations

import numpy as np
from scipy.special import betaincinv

from train.augment.boxes import Boxes
from train.augment.draws import ItemDraws, Stream
from train.augment.image_config import ImageAugment
from train.sources.base import UNLABELLED


def mixes(config: ImageAugment) -> bool:
    """Whether any item is mixed."""
    return bool(config.mixup or config.cutmix)


def mixed_rows(config: ImageAugment, draws: ItemDraws) -> np.ndarray:
    """Which of the N items are mixed, int64 [M]."""
    chance = np.where(_by_cutmix(config, draws), config.probability.cutmix, config.probability.mixup)
    return np.flatnonzero(draws.uniform(Stream.MIX) < chance)


def partners(draws: ItemDraws, total: int) -> np.ndarray:
    """With which of the `total` items of the split each is mixed, int64 [N]: any other with equal chance."""
    if total == 1:
        return draws.index
    other = (draws.uniform(Stream.MIX_PARTNER) * (total - 1)).astype(np.int64)
    return other + (other >= draws.index)


def mix(
    images: np.ndarray, others: np.ndarray, config: ImageAugment, draws: ItemDraws
) -> tuple[np.ndarray, np.ndarray]:
    """`images` uint8 [N, H, W, C] mixed with their partners `others`, and which share of each is its own, float32 [N].

    By Mixup pixel by pixel, rounded to grey levels; by CutMix a box is the partner's, and its area counts.
    """
    by_cutmix = _by_cutmix(config, draws)
    alpha = np.where(by_cutmix, config.cutmix, config.mixup)
    share = betaincinv(alpha, alpha, draws.uniform(Stream.MIX_SHARE))
    boxes = _boxes(share, draws, *images.shape[1:3])
    share = np.where(by_cutmix, 1 - boxes.height * boxes.width / (images.shape[1] * images.shape[2]), share)
    share = share.astype(np.float32)
    mixed = np.empty_like(images)
    for rows, blend in ((by_cutmix, _paste), (~by_cutmix, _average)):
        if rows.any():
            mixed[rows] = blend(images[rows], others[rows], share[rows], boxes.mask(*images.shape[1:3])[rows])
    return mixed, share


def targets(labels: np.ndarray, other_labels: np.ndarray, share: np.ndarray, classes: int) -> np.ndarray:
    """How much of each class is in each item, float32 [N, K]: `share` [N] of its label, the rest of its partner's.

    An item with a part of which no label is known counts as one without a label, and has a row of zeros: to hold it
    against the part that is known would teach that the other part is nothing. A teacher answers for all of it.
    """
    found = np.zeros((len(labels), classes), dtype=np.float32)
    rows = np.flatnonzero((labels != UNLABELLED) & (other_labels != UNLABELLED))
    found[rows, labels[rows]] += share[rows]
    found[rows, other_labels[rows]] += 1 - share[rows]
    return found


def _by_cutmix(config: ImageAugment, draws: ItemDraws) -> np.ndarray:
    """Of two ways, by which each is mixed: bool [N]."""
    chance = 0.5 if config.mixup and config.cutmix else float(config.cutmix > 0)
    return draws.happens(Stream.MIX_KIND, chance)


def _boxes(share: np.ndarray, draws: ItemDraws, height: int, width: int) -> Boxes:
    """Boxes of the image's shape with the area 1 - share, centred anywhere, and cut off at the edge as in the paper."""
    edges = []
    for size, stream in ((height, Stream.MIX_TOP), (width, Stream.MIX_LEFT)):
        half = size * np.sqrt(1 - share) / 2
        centre = draws.uniform(stream) * size
        start, end = (np.clip(np.rint(end), 0, size).astype(np.int64) for end in (centre - half, centre + half))
        edges.append((start, end - start))
    (top, tall), (left, wide) = edges
    return Boxes(top, left, tall, wide)


def _paste(images: np.ndarray, others: np.ndarray, share: np.ndarray, box: np.ndarray) -> np.ndarray:
    return np.where(box[..., None], others, images)


def _average(images: np.ndarray, others: np.ndarray, share: np.ndarray, box: np.ndarray) -> np.ndarray:
    part = share[:, None, None, None]
    return np.rint(part * images + (1 - part) * others).astype(np.uint8)
