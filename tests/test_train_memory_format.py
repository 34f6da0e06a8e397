"""What is said of the order in which the maps of convolutions lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs
from text_models import text_classifier
from torch import nn

from train.fit import fit
from train.fit_config import FitConfig
from train.following import Following
from train.memory_format import memory_format

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
INPUTS = image_inputs(IMAGES, np.arange(16) % 2)
KEPT = "convolutions in channels_last: images are decoded so, a pixel's channels side by side, and they keep it"


class Rearranged(nn.Module):
    """Two convolutions that keep the order, and one that is given another."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.layers[1](self.layers[0](images))
        return self.layers[2](maps.contiguous()).mean(dim=(2, 3))[:, :2]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("model", ["builtin:cnn-4x8", "builtin:resnet8"])
def test_convolutions_on_images_are_said_to_be_channels_last(model: str, channels: int) -> None:
    assert memory_format(image_classifier(IMAGES[..., :channels], ("a", "b"), model=model)) == KEPT


def test_nothing_is_said_of_networks_without_convolutions_on_images() -> None:
    assert memory_format(image_classifier(IMAGES, ("a", "b"), model="builtin:mlp-8")) is None
    assert memory_format(text_classifier("builtin:textcnn")) is None


def test_convolutions_that_are_given_another_order_are_not_counted() -> None:
    model = image_classifier(IMAGES, ("a", "b"))
    model.network = Rearranged()
    said = memory_format(model)
    assert said is not None
    assert said.startswith("2 of 3 convolutions in channels_last: images are decoded so, and what the network does")
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(("model", "expected"), [("builtin:cnn-4", [KEPT]), ("builtin:mlp-8", [])])
def test_it_is_said_once_beside_the_precision(tmp_path: Path, model: str, expected: list[str]) -> None:
    said: list[str] = []
    config = FitConfig(epochs=1, batch_size=8)
    network = image_classifier(IMAGES, ("a", "b"), model=model)
    fit(network, config, INPUTS, INPUTS, 5, tmp_path, following=Following(say=said.append))
    assert said[0].startswith("training in ")
    assert said[1 : 1 + len(expected)] == expected
    assert sum("channels_last" in text for text in said) == len(expected)
