"""`options.dropout` reaches every dropout of a network, also after it was saved; where there is none it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import image_models
import numpy as np
import pytest
import torch
from helpers import image_classifier
from text_models import FAMILIES, TEXTS, text_classifier, tiny_folder
from torch import nn

from serve.errors import UserError
from train.classifier import Classifier, load_classifier, save_classifier

IMAGES = np.zeros((2, 32, 32, 3), np.uint8)


def rates(classifier: Classifier) -> set[float]:
    """Of all dropouts: modules, and attention that keeps a number."""
    modules = list(classifier.network.modules())
    found = {float(module.p) for module in modules if isinstance(module, nn.Dropout)}
    kept = [getattr(module, "attention_dropout", None) for module in modules]
    return found | {float(rate) for rate in kept if isinstance(rate, float)}


def check(classifier: Classifier, rate: float, folder: Path) -> None:
    assert rates(classifier) == {rate}
    save_classifier(classifier, folder)
    again = load_classifier(folder)
    assert rates(again) == {rate}


@pytest.mark.parametrize("family", FAMILIES)
def test_of_transformers_for_texts(tmp_path: Path, family: str) -> None:
    name = f"hf:{tiny_folder(tmp_path / 'model', family)}"
    assert rates(text_classifier(name)) - {0.0}  # their own
    check(text_classifier(name, dropout=0.37), 0.37, tmp_path / "saved")
    calm = text_classifier(name, dropout=0.0).train()
    ids = torch.from_numpy(calm.preparer().prepare(TEXTS))
    assert torch.equal(calm(ids), calm(ids))
    wild = text_classifier(name, dropout=0.37).train()
    assert not torch.equal(wild(ids), wild(ids))


@pytest.mark.parametrize("family", FAMILIES)
def test_of_students_made_of_their_layers(tmp_path: Path, family: str) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path / 'model', family)}", dropout=0.0)
    assert rates(text_classifier("teacher-layers:1", teacher=teacher)) == {0.0}
    check(text_classifier("teacher-layers:1", teacher=teacher, dropout=0.37), 0.37, tmp_path / "saved")
    assert rates(teacher) == {0.0}


@pytest.mark.parametrize("family", ["vit", "deit"])
def test_of_transformers_for_images(tmp_path: Path, family: str) -> None:
    folder = image_models.tiny_folder(tmp_path / "model", family)
    check(image_models.transformer(folder, dropout=0.37), 0.37, tmp_path / "saved")
    student = image_models.image_model("teacher-layers:1", teacher=image_models.transformer(folder), dropout=0.25)
    assert rates(student) == {0.25}


@pytest.mark.parametrize(
    "model", ["torchvision:squeezenet1_1", "torchvision:mobilenet_v3_small", "torchvision:densenet121", "builtin:cnn-4"]
)
def test_of_convolutional_networks(tmp_path: Path, model: str) -> None:
    options: dict[str, Any] = {} if model.startswith("builtin") else {"image_size": 32}
    classifier = image_classifier(IMAGES, ("a", "b"), model=model, dropout=0.37, **options)
    found = rates(classifier) | {
        float(rate) for module in classifier.modules() if (rate := getattr(module, "drop_rate", None)) is not None
    }
    assert found == {0.37}


def test_of_our_own(tmp_path: Path) -> None:
    check(text_classifier("builtin:textcnn", dropout=0.37), 0.37, tmp_path / "textcnn")
    mlp = image_classifier(IMAGES, ("a", "b"), model="builtin:mlp-8x8", dropout=0.37, input_dropout=0.2)
    assert [module.p for module in mlp.modules() if isinstance(module, nn.Dropout)] == [0.2, 0.37, 0.37]
    check(image_classifier(IMAGES, ("a", "b"), model="builtin:resnet8", dropout=0.37), 0.37, tmp_path / "resnet")


def test_where_there_is_none_it_is_refused(tmp_path: Path) -> None:
    for refused in (
        lambda: image_classifier(IMAGES, ("a", "b"), model="torchvision:resnet18", dropout=0.1),
        lambda: image_models.transformer(image_models.tiny_folder(tmp_path / "resnet", "resnet"), dropout=0.1),
    ):
        with pytest.raises(UserError, match="has no dropout") as error:
            refused()
        assert error.value.hint == "leave out options.dropout"
    with pytest.raises(UserError, match=r"does not take option dropout = 1\.0"):
        text_classifier(f"hf:{tiny_folder(tmp_path / 'bert')}", dropout=1.0)
