from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import image_classifier, image_inputs

from serve.errors import UserError
from train.fit import fit
from train.fit_config import FitConfig

IMAGES, TARGETS = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8), np.arange(6) % 2
INPUTS = image_inputs(IMAGES, TARGETS)


def test_batch_norm_on_maps_of_one_pixel_refuses_single_items_at_the_start(tmp_path: Path) -> None:
    classifier = image_classifier(IMAGES, ("a", "b"), model="torchvision:mobilenet_v2", image_size=32)
    with pytest.raises(UserError, match=r"fit\.batch_size = 1 cannot train 'torchvision:mobilenet_v2'") as refused:
        fit(classifier, FitConfig(epochs=1, batch_size=1), INPUTS, INPUTS, 0, tmp_path)
    assert "fit.batch_size to 2" in refused.value.hint
    assert not any(module._forward_pre_hooks for module in classifier.modules())


def test_batch_norm_on_larger_maps_takes_single_items(tmp_path: Path) -> None:
    classifier = image_classifier(IMAGES, ("a", "b"), model="builtin:cnn-4x8")
    result = fit(classifier, FitConfig(epochs=1, batch_size=1), INPUTS, INPUTS, 0, tmp_path)
    assert np.isfinite(result.epochs[0].loss)
