"""`fit.grow_images`: small images in the first epochs of a training, the full size in the last.

Early epochs learn coarse features, which small images show as well, in a fraction of the time: half the side is a
quarter of the work (fastai's progressive resizing; Tan & Le 2021, EfficientNetV2, arXiv 2104.00298, section 4). A
teacher is asked about the same small images ("consistent teaching", Beyer et al. 2021, arXiv 2106.05237). Validation
is at full size always.

N images of height H and width W, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2 import functional

from serve.errors import UserError
from serve.manifest import ImagePreprocessing
from train.classifier import Classifier
from train.fit_config import FitConfig


@dataclass(frozen=True)
class ImageGrowth:
    """The sides of the images over a training, as shares of the full size: each for as many epochs as any other."""

    scales: tuple[float, ...]  # rising, the last is 1
    epochs: int

    def scale(self, epoch: int) -> float:
        """Of an epoch, counted from 0; of one beyond the last, 1."""
        return self.scales[min(epoch * len(self.scales) // self.epochs, len(self.scales) - 1)]

    def see(self, images: np.ndarray, epoch: int) -> np.ndarray:
        """uint8 [N, H, W, C] as large as they are in this epoch: antialiased, bilinear."""
        return resized(images, self.scale(epoch))


def growth_of(config: FitConfig) -> ImageGrowth | None:
    """What `config` asks for; None: images stay as they are."""
    return ImageGrowth(config.grow_images, config.epochs) if config.grow_images else None


def resized(images: np.ndarray, scale: float) -> np.ndarray:
    """uint8 [N, H, W, C] with sides of `scale` times theirs, rounded to whole pixels."""
    if scale == 1.0:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[1:3]]
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    small = functional.resize(pixels, size, functional.InterpolationMode.BILINEAR, antialias=True)
    return np.ascontiguousarray(small.permute(0, 2, 3, 1).numpy())


def check_growth(config: FitConfig, classifier: Classifier) -> None:
    """Raise UserError unless `classifier` takes images of every size that `config.grow_images` asks for.

    It is asked by giving it one of each: networks that pool over all positions take any, MLPs and vision transformers
    with a position for each patch take one.
    """
    if not config.grow_images:
        return
    spec = classifier.spec.preprocessing
    if not isinstance(spec, ImagePreprocessing):
        raise UserError(f"fit.grow_images is for images, and '{classifier.spec.model}' reads texts", "leave it out")
    for scale in config.grow_images:
        example = small_example(classifier, scale)
        if not _takes(classifier, example):
            height, width = example.shape[1:3]
            raise UserError(
                f"fit.grow_images: '{classifier.spec.model}' does not take images of {width}x{height} pixels "
                f"({scale} of their size)",
                "it needs a network that takes any size (a ResNet, and most of torchvision's), as student and as "
                "teacher; or leave grow_images out",
            )


def small_example(classifier: Classifier, scale: float) -> torch.Tensor:
    """One black image of `scale` times the full size."""
    return torch.from_numpy(resized(classifier.example(1).numpy(), scale))


@torch.no_grad()
def _takes(classifier: Classifier, example: torch.Tensor) -> bool:
    training, device = classifier.training, next(classifier.parameters()).device
    try:
        return bool(classifier.eval()(example.to(device)).shape == (1, len(classifier.spec.labels)))
    except (RuntimeError, ValueError, AssertionError):  # torch's and the models' own words on shapes
        return False
    finally:
        classifier.train(training)
