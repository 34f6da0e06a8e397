"""Whether a network takes the images that it will be given: asked at once, not after an hour of training."""

from __future__ import annotations

import torch
from torch import nn

from serve.errors import UserError, said
from serve.manifest import ImagePreprocessing


@torch.no_grad()
def check_input(module: nn.Module, preprocessing: ImagePreprocessing, name: str) -> None:
    """Raise UserError unless `module` scores an image of this size and colour. It keeps its mode."""
    height, width, channels = preprocessing.shape
    training = module.training
    try:
        module.eval()(torch.zeros(1, channels, height, width))
    except (RuntimeError, ValueError, AssertionError) as error:  # torch's and the models' own words on shapes
        raise UserError(
            f"'{name}' does not take images of {width}x{height} pixels and {channels} channels: {said(error)}",
            "set options.image_size of the teacher to a size that it takes, for example 224",
        ) from None
    finally:
        module.train(training)
