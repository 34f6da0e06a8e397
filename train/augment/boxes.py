"""Random boxes in images, all within the image. N items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from train.augment.draws import ItemDraws, Stream

Range = tuple[float, float]  # the least and the most
Streams = tuple[Stream, Stream, Stream, Stream]


@dataclass(frozen=True)
class Boxes:
    """One box for each item, in pixels: int64 [N] each."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray

    def mask(self, height: int, width: int) -> np.ndarray:
        """Where the boxes are, bool [N, H, W]."""
        rows, columns = np.arange(height), np.arange(width)
        y = (rows >= self.top[:, None]) & (rows < (self.top + self.height)[:, None])
        x = (columns >= self.left[:, None]) & (columns < (self.left + self.width)[:, None])
        return y[:, :, None] & x[:, None, :]


def draw_boxes(draws: ItemDraws, streams: Streams, area: Range, aspect: Range, height: int, width: int) -> Boxes:
    """Boxes with a share of the image in `area` and width / height in `aspect`, at any place with equal chance.

    The logarithm of the aspect is uniform, among those with which a box of this area fits into the image; where none of
    `aspect` does (a long panorama), the nearest that does is taken. torchvision draws again and again instead until a
    box fits. `streams` are for area, aspect, top and left.
    """
    share = draws.between(streams[0], *area)
    narrowest, widest = np.log(share * width / height), np.log(width / (share * height))
    low, high = (np.clip(np.log(end), narrowest, widest) for end in aspect)
    ratio = np.exp(low + draws.uniform(streams[1]) * (high - low))
    wide = np.clip(np.rint(np.sqrt(share * height * width * ratio)), 1, width).astype(np.int64)
    tall = np.clip(np.rint(np.sqrt(share * height * width / ratio)), 1, height).astype(np.int64)
    top = (draws.uniform(streams[2]) * (height - tall + 1)).astype(np.int64)
    left = (draws.uniform(streams[3]) * (width - wide + 1)).astype(np.int64)
    return Boxes(top, left, tall, wide)
