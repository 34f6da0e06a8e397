"""Where things are in an image: crop, shift, flip, rotate, zoom, bend. Images are uint8 [N, H, W, C].

None is written to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torchvision.transforms.v2 import functional as F

from train.augment.boxes import Boxes
from train.augment.draws import ItemDraws, Stream


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


def warp(images: np.ndarray, degrees: np.ndarray, zoom: np.ndarray, moved: np.ndarray | None = None) -> np.ndarray:
    """Clockwise by so many degrees and so many times as large, about the centre; each pixel then `moved`.

    `moved` float [N, 2, H, W] says how many pixels to the right and down of its place a pixel is taken from. All in one
    step, since each interpolation blurs; what is uncovered is black.
    """
    rows = np.flatnonzero((degrees != 0) | (zoom != 1) | (moved.any(axis=(1, 2, 3)) if moved is not None else False))
    if not rows.size:
        return images
    places = _places_before(np.deg2rad(degrees[rows]), zoom[rows], *images.shape[1:3])
    if moved is not None:
        places += torch.from_numpy(moved[rows]).permute(0, 2, 3, 1)
    height, width = images.shape[1:3]
    grid = places * torch.tensor([2 / width, 2 / height])  # from -1 to 1, the outer edges of the image
    pixels = as_tensor(images[rows]).float()
    views = torch.nn.functional.grid_sample(pixels, grid, padding_mode="zeros", align_corners=False)
    changed = images.copy()
    as_tensor(changed)[torch.from_numpy(rows)] = views.round_().to(torch.uint8)
    return changed


def elastic_field(
    draws: ItemDraws, rows: np.ndarray, strength: float, sigma: float, size: tuple[int, int]
) -> np.ndarray:
    """Where each pixel is taken from, float32 [N, 2, H, W], as `warp` wants it: zero but in these rows.

    Simard et al. 2003, "Best practices for convolutional neural networks applied to visual document analysis": noise
    between -1 and 1 for each pixel, smoothed by a Gaussian of `sigma` pixels, times `strength`.
    """
    field = np.zeros((len(draws.index), 2, *size), dtype=np.float32)
    for row in rows.tolist():
        field[row] = draws.generator(row, Stream.ELASTIC_FIELD).random((2, *size), dtype=np.float32)
    field[rows] = strength * (_smoothing(size[0], sigma) @ (2 * field[rows] - 1) @ _smoothing(size[1], sigma).T)
    return field


def _places_before(angle: np.ndarray, zoom: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Where each pixel was before the turn and the zoom, float32 [N, H, W, 2] as (right, down) from the centre."""
    down = np.arange(height)[None, :, None] - (height - 1) / 2
    right = np.arange(width)[None, None, :] - (width - 1) / 2
    cosine, sine = ((turn(angle) / zoom)[:, None, None] for turn in (np.cos, np.sin))
    places = np.stack([right * cosine + down * sine, down * cosine - right * sine], axis=-1)
    return torch.from_numpy(places.astype(np.float32))


@cache
def _smoothing(size: int, sigma: float) -> np.ndarray:
    """A Gaussian as a matrix float32 [size, size]; beyond the edges there is nothing."""
    return gaussian_filter1d(np.eye(size, dtype=np.float32), sigma, axis=0, mode="constant")
