"""A convolutional student whose last layer is its teacher's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_models import image_model, tiny_folder
from tiny_run import content, run_content

from compress.recipe_file import parse_recipe
from serve.errors import UserError
from train.classifier import Classifier, load_classifier, save_classifier
from train.distill.stages import find_stages


def last_layer(classifier: Classifier) -> list[np.ndarray]:
    layers = [module for module in classifier.network.modules() if isinstance(module, torch.nn.Linear)]
    return [parameter.detach().numpy() for parameter in layers[-1].parameters()]


def logits(classifier: Classifier) -> np.ndarray:
    with torch.no_grad():
        return classifier.eval()(classifier.example(3)).numpy()


@pytest.mark.parametrize("teacher", ["builtin:resnet8", "builtin:cnn-4x6", "torchvision:resnet18", "hf"])
@pytest.mark.parametrize("student", ["builtin:resnet8", "builtin:wrn-10-1"])
def test_it_reads_features_as_wide_as_the_teachers(tmp_path: Path, teacher: str, student: str) -> None:
    name = f"hf:{tiny_folder(tmp_path / 'hf')}" if teacher == "hf" else teacher
    large = image_model(name, **({} if teacher == "hf" else {"image_size": 32}))
    small = image_model(student, teacher=large, classifier="teacher", width=3)
    for ours, theirs in zip(last_layer(small), last_layer(large), strict=True):
        assert np.array_equal(ours, theirs)
    save_classifier(small, tmp_path / "small")
    assert np.array_equal(logits(load_classifier(tmp_path / "small")), logits(small))


def test_the_last_stage_to_compare_is_what_the_layer_reads() -> None:
    teacher = image_model("builtin:resnet8", width=5, image_size=16)
    student = image_model("builtin:resnet8", teacher=teacher, classifier="teacher", width=2)
    assert [stage.channels for stage in find_stages(student)] == [2, 4, 20]
    plain = image_model("builtin:resnet8", teacher=teacher, width=2)
    assert [stage.channels for stage in find_stages(plain)] == [2, 4, 8]


def test_what_cannot_be_is_told() -> None:
    teacher = image_model("builtin:resnet8", image_size=16)
    with pytest.raises(UserError, match="needs a teacher of images"):
        image_model("builtin:resnet8", classifier="teacher", image_size=16)
    with pytest.raises(UserError, match="has no features that a teacher's last layer could read") as refused:
        image_model("builtin:mlp-8", teacher=teacher, classifier="teacher")
    assert "resnet20, wrn-16-2" in refused.value.hint
    with pytest.raises(UserError, match="does not take option classifier = 'teachers'"):
        image_model("builtin:resnet8", teacher=teacher, classifier="teachers")
    with pytest.raises(UserError, match=r"options\.features would have no effect"):
        image_model("builtin:resnet8", teacher=teacher, classifier="teacher", features=9)
    recipe: dict[str, Any] = content() | {"students": []}
    recipe["teacher"] = {"model": "builtin:resnet8", "options": {"classifier": "teacher"}}
    with pytest.raises(UserError, match="cannot be the teacher"):
        parse_recipe(recipe, "recipe.toml")


def test_a_run_learns_by_the_teachers_features_and_the_control_starts_alike(tmp_path: Path) -> None:
    recipe = content()
    fit = {"epochs": 1, "batch_size": 64}
    recipe["teacher"] = {"model": "builtin:resnet8", "options": {"width": 3}, "fit": fit}
    recipe["students"] = [
        {
            "name": "small",
            "model": "builtin:resnet8",
            "options": {"width": 2, "classifier": "teacher"},
            "fit": fit,
            "distill": {"features": [{"loss": "hints", "layers": [[2, 2]], "weight": 5.0}]},
        }
    ]
    recipe["quantize"] = {"precisions": ["fp32"]}
    recipe["data"]["train"] = 256
    ran = run_content(recipe, tmp_path / "run", memory=False)
    assert {variant.name for variant in ran.report.variants} >= {"small", "small-alone"}
    for name in ("small", "small-alone"):
        assert load_classifier(tmp_path / "run" / "students" / name).spec.network.config["features"] == 12
