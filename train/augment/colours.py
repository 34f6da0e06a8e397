"""Light, colour and grain. Images are uint8 [N, H, W, C], factors float64 [N]; none of the images is written to.

torchvision takes one strength for a whole batch, so what is arithmetic on pixels is written here for one strength each.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from train.augment.draws import ItemDraws
from train.augment.geometry import as_tensor, one_by_one

LEAST_SIGMA = 0.1  # of a blur, in pixels: torchvision's


def brightness(images: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """So many times as bright."""
    return _blend(images, torch.zeros(()), factor)


def contrast(images: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """So many times as far from the image's mean grey."""
    grey = _grey(images)
    # summed as integers: a sum of floats may depend on how many images are beside it, and on the number of threads
    mean = grey.sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64) / grey[0].numel()
    return _blend(images, mean.float(), factor)


def saturation(images: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """So many times as far from the same image in grey."""
    return _blend(images, _grey(images).float(), factor)


def hue(images: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Colours moved along the circle of hues, by so many turns, -0.5 to 0.5."""
    rows = np.flatnonzero(turns).tolist()
    return one_by_one(images, rows, lambda image, row: F.adjust_hue(image, float(turns[row])))


def grayscale(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """In grey, three times the same channel, where `chosen` bool [N]."""
    grey = _grey(images).permute(0, 2, 3, 1).numpy()
    return np.where(chosen[:, None, None, None], grey, images)


def blur(images: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Gaussian blur of so many pixels; 0: none."""
    most = min(images.shape[1:3]) - 1  # an edge is mirrored outwards, which has no more to give

    def change(image: torch.Tensor, row: int) -> torch.Tensor:
        size = 2 * min(math.ceil(3 * sigma[row]), most) + 1
        blurred: torch.Tensor = F.gaussian_blur(image, kernel_size=[size, size], sigma=[float(sigma[row])] * 2)
        return blurred

    return one_by_one(images, np.flatnonzero(sigma).tolist() if most else [], change)


def noise(images: np.ndarray, levels: float, chosen: np.ndarray, draws: ItemDraws) -> np.ndarray:
    """Gaussian noise with a deviation of so many of 255 grey levels, in each channel anew, where `chosen` bool [N]."""
    noisy = images.copy()
    for row in np.flatnonzero(chosen).tolist():
        grain = draws.generator(row).standard_normal(images.shape[1:], dtype=np.float32)
        grain *= levels
        grain += images[row]
        noisy[row] = np.clip(np.rint(grain, out=grain), 0, 255, out=grain)
    return noisy


def _grey(images: np.ndarray) -> torch.Tensor:
    """uint8 [N, 1, H, W]."""
    pixels = as_tensor(images)
    if pixels.shape[1] == 1:
        return pixels
    grey: torch.Tensor = F.rgb_to_grayscale(pixels)
    return grey


def _blend(images: np.ndarray, other: torch.Tensor, factor: np.ndarray) -> np.ndarray:
    """factor * images + (1 - factor) * other, rounded, so that a factor of 1 and equal pixels change nothing."""
    share = torch.from_numpy(factor.astype(np.float32))[:, None, None, None]
    pixels = as_tensor(images) * share
    blended = pixels.add_(other * (1 - share)).round_().clamp_(0, 255).to(torch.uint8)
    return np.ascontiguousarray(blended.permute(0, 2, 3, 1).numpy())
