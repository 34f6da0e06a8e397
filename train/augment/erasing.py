"""Random erasing (Zhong et al. 2017, arXiv 1708.04896): a box of an image is covered."""

from __future__ import annotations

from typing import Literal

import numpy as np

from train.augment.boxes import Boxes
from train.augment.draws import ItemDraws

EraseWith = Literal["noise", "mean", "black"]
_OTHER_DRAWS = 1  # of the generator of an item, the first child is for this: `colours.noise` draws from itself


def erase(images: np.ndarray, boxes: Boxes, fill: EraseWith, draws: ItemDraws, rows: np.ndarray) -> np.ndarray:
    """`images` uint8 [N, H, W, C] with these boxes [N] covered in these rows; none of the images is written to.

    With "noise", any pixel of any value, which the paper finds best; with the image's "mean", or "black".
    """
    erased = images.copy()
    for row in rows.tolist():
        top, left, height, width = (int(part[row]) for part in (boxes.top, boxes.left, boxes.height, boxes.width))
        box = erased[row, top : top + height, left : left + width]
        if fill == "noise":
            box[:] = draws.generator(row).spawn(_OTHER_DRAWS)[0].integers(0, 256, box.shape, dtype=np.uint8)
        else:
            box[:] = 0 if fill == "black" else np.rint(images[row].mean(axis=(0, 1)))
    return erased
