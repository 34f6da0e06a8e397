"""fit.gradient_checkpointing: the same gradients, the same statistics of batch norm, whatever is computed twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs
from text_models import text_classifier, tiny_folder
from torch import nn

from serve.errors import UserError
from train.classifier import Classifier
from train.distill import DistillConfig
from train.distill.config import FeatureConfig
from train.fit import fit
from train.fit_config import FitConfig
from train.recompute import recomputed_layers, recomputing
from train.teaching import Teaching

LABELS = tuple("abcd")
GENERATOR = np.random.default_rng(0)
IMAGES, TARGETS = GENERATOR.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8), GENERATOR.integers(0, 4, 24)
SPLIT = image_inputs(IMAGES, TARGETS)


def images(model: str, **options: Any) -> tuple[Classifier, torch.Tensor]:
    classifier = image_classifier(IMAGES, LABELS, model=model, **options)
    shape = (4, *classifier.spec.preprocessing.shape)
    return classifier, torch.from_numpy(GENERATOR.integers(0, 256, shape, dtype=np.uint8))


def texts(folder: Path, family: str) -> tuple[Classifier, torch.Tensor]:
    classifier = text_classifier(f"hf:{tiny_folder(folder, family)}", dropout=0.3)
    return classifier, torch.from_numpy(GENERATOR.integers(5, 20, (4, 9)))


def passed(classifier: Classifier, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients and buffers after one pass forwards and backwards in training mode, dropout seeded."""
    torch.manual_seed(3)
    classifier.train().zero_grad()
    classifier(inputs).logsumexp(dim=1).sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in classifier.named_parameters()}
    return gradients | {name: buffer.clone() for name, buffer in classifier.named_buffers()}


@pytest.mark.parametrize(
    "model",
    ["builtin:resnet8", "builtin:wrn-10-2", "torchvision:resnet18", "torchvision:efficientnet_b0", "bert", "gpt2"],
)
def test_gradients_and_statistics_are_the_same(tmp_path: Path, model: str) -> None:
    options = {"image_size": 32} if model.startswith("torchvision:") else {"dropout": 0.3}
    classifier, inputs = images(model, **options) if ":" in model else texts(tmp_path, model)
    start = {name: value.clone() for name, value in classifier.state_dict().items()}
    plain = passed(classifier, inputs)
    classifier.load_state_dict(start)
    entered = count_passes(classifier)
    with recomputing(classifier):
        again = passed(classifier, inputs)
    assert entered() > 1  # something was computed twice, or this compares two equal things
    for name, value in plain.items():
        assert torch.equal(value, again[name]), name
    classifier.load_state_dict(start)
    entered = count_passes(classifier)
    after = passed(classifier, inputs)
    assert entered() == 1
    assert all(torch.equal(value, after[name]) for name, value in plain.items())


def count_passes(classifier: Classifier) -> Any:
    """How often a module inside of the layers is entered, asked for after the pass."""
    models, blocks = recomputed_layers(classifier)
    layers = blocks or [part for part in models[0].modules() if hasattr(part, "gradient_checkpointing")]
    inner = next(part for part in layers[-1].modules() if isinstance(part, (nn.Conv2d, nn.LayerNorm)))
    count: list[int] = []
    hook = inner.register_forward_pre_hook(lambda *_: count.append(1))

    def entered() -> int:
        hook.remove()
        return len(count)

    return entered


@pytest.mark.parametrize("feature", ["hints", "attention-maps"])
def test_a_student_learns_the_same_from_inside_its_teacher(tmp_path: Path, feature: str) -> None:
    teacher, _ = images("builtin:resnet8", width=8)
    lesson = DistillConfig(features=(FeatureConfig(loss=feature, weight=1.0),))
    trained = []
    for at, on in enumerate((False, True)):
        student, _ = images("builtin:resnet8", width=4, dropout=0.2)
        config = FitConfig(epochs=2, batch_size=8, gradient_checkpointing=on, ema=0.9)
        fit(student, config, SPLIT, SPLIT, 5, tmp_path / str(at), Teaching(teacher, lesson, SPLIT))
        trained.append(student.state_dict())
    assert trained[0].keys() == trained[1].keys()
    for name, value in trained[0].items():
        assert torch.allclose(value, trained[1][name], atol=1e-6), name


@pytest.mark.parametrize("model", ["builtin:mlp-16", "builtin:cnn-8", "torchvision:alexnet"])
def test_networks_without_layers_are_refused(tmp_path: Path, model: str) -> None:
    classifier, _ = images(model, **({"image_size": 64} if model.startswith("torchvision:") else {}))
    with pytest.raises(UserError, match=f"'{model}' has no layers to compute again") as refused:
        fit(classifier, FitConfig(epochs=1, gradient_checkpointing=True), SPLIT, SPLIT, 5, tmp_path)
    assert "fit.batch_size" in refused.value.hint
