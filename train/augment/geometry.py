"""Where things are in an image: crop, shift, flip, rotate, zoom. Images are uint8 [N, H, W, C]; none is written to."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from train.augment.boxes import Boxes


def as_tensor(images: np.ndarray) -> torch.Tensor:
    """The same memory as torchvision sees images: [N, C, H, W]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def one_by_one(
    images: np.ndarray, rows: Iterable[int], change: Callable[[torch.Tensor, int], torch.Tensor]
) -> np.ndarray:
    """The images, these rows of them each as `change` makes it of uint8 [C, H, W] and its row.

    For what torchvision does to one image at a time, or with one strength for a whole batch.
    """
    changed = images.copy()
    target, source = as_tensor(changed), as_tensor(images)
    for row in rows:
        target[row] = change(source[row], row)
    return changed


def crop(images: np.ndarray, boxes: Boxes, rows: np.ndarray) -> np.ndarray:
    """What is in these boxes [N], as large as the image was (Szegedy et al. 2014, arXiv 1409.4842); other rows stay."""
    size = list(images.shape[1:3])

    def change(image: torch.Tensor, row: int) -> torch.Tensor:
        place = [int(part[row]) for part in (boxes.top, boxes.left, boxes.height, boxes.width)]
        view: torch.Tensor = F.resized_crop(image, *place, size=size, antialias=True)
        return view

    return one_by_one(images, rows.tolist(), change)


def shift(images: np.ndarray, dy: np.ndarray, dx: np.ndarray, most: int) -> np.ndarray:
    """Cut [H, W] out of each black-padded image at (dy, dx), both in 0..2*most."""
    n, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
    rows = dy[:, None, None] + np.arange(height)[None, :, None]
    columns = dx[:, None, None] + np.arange(width)[None, None, :]
    return padded[np.arange(n)[:, None, None], rows, columns]


def flip(images: np.ndarray, mirrored: np.ndarray, vertical: bool = False) -> np.ndarray:
    """Left for right, or top for bottom, where `mirrored` bool [N]."""
    return np.where(mirrored[:, None, None, None], images[:, ::-1] if vertical else images[:, :, ::-1], images)


def turn(images: np.ndarray, degrees: np.ndarray, zoom: np.ndarray) -> np.ndarray:
    """Clockwise by so many degrees and so many times as large, about the centre; what is uncovered is black.

    Both in one step, since each interpolation blurs.
    """
    rows = np.flatnonzero((degrees != 0) | (zoom != 1))

    def change(image: torch.Tensor, row: int) -> torch.Tensor:
        view: torch.Tensor = F.affine(
            image,
            angle=float(degrees[row]),
            translate=[0, 0],
            scale=float(zoom[row]),
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        return view

    return one_by_one(images, rows.tolist(), change)
