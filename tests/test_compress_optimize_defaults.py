"""Students that are tried where [optimize] names none: they can all be made of such a teacher."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import encoded, image_classifier, image_inputs
from PIL import Image
from text_models import text_classifier, tiny_folder
from text_models import wanted as wanted_of_texts
from tiny_run import content

from compress.optimize.defaults import default_students
from compress.optimize.space import check_space, designs_of
from compress.recipe import Recipe
from compress.recipe_file import parse_recipe
from train.classifier import Classifier, ModelConfig, new_classifier
from train.draft import Wanted
from train.sources import Items

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
LABELS = ("a", "b")


def recipe_of(**changes: Any) -> Recipe:
    return parse_recipe({**content(), "students": [], **changes}, "tiny")


def wanted(teacher: Classifier) -> Wanted:
    items = Items([encoded(Image.fromarray(image)) for image in IMAGES], np.arange(len(IMAGES)) % 2)
    return Wanted("image", LABELS, 0, items, lambda _: image_inputs(IMAGES, items.labels), teacher)


@pytest.mark.parametrize("model", ["builtin:mlp-64x64", "builtin:cnn-16x32", "builtin:resnet14", "builtin:wrn-10-2"])
def test_students_of_a_teacher_of_images_can_be_made(model: str) -> None:
    teacher = image_classifier(IMAGES, LABELS, model=model).eval()
    spaces = default_students(recipe_of(), teacher, 1000)
    check_space(spaces, "image")
    assert any(space.model[0].startswith("teacher-channels") for space in spaces) == ("mlp" not in model)
    made = [one.student for space in spaces for one in designs_of(space)]
    assert len(made) >= 3
    for student in made[:: max(1, len(made) // 4)]:
        config = ModelConfig(model=student.model, options={**student.options})
        network = new_classifier(config, wanted(teacher))
        assert network.spec.labels == LABELS


@pytest.mark.parametrize("layers", [2, 6])
def test_students_of_a_transformer_are_some_of_its_layers_and_narrower_ones(tmp_path: Path, layers: int) -> None:
    tiny_folder(tmp_path, "bert", layers=layers)
    teacher = text_classifier(f"hf:{tmp_path}")
    recipe = recipe_of(task="text", data={"source": "csv:x.csv"}, teacher={"model": f"hf:{tmp_path}"})
    spaces = default_students(recipe, teacher, 1000)
    check_space(spaces, "text")
    names = {space.name for space in spaces}
    assert names == {"layers", "ffn", "narrow", "textcnn"}
    whole = next(space for space in spaces if space.name == "layers")
    assert set(whole.model) == {f"teacher-layers:{count}" for count in ((1,) if layers == 2 else (1, 2, 3, 4))}
    for space in spaces:
        student = next(designs_of(space)).student
        made = new_classifier(
            ModelConfig(model=student.model, options=student.options),
            replace(wanted_of_texts(), teacher=teacher),
        )
        assert made.spec.labels == teacher.spec.labels


def test_a_teacher_without_layers_gets_smaller_networks_of_its_kind() -> None:
    recipe = recipe_of(task="text", data={"source": "csv:x.csv"}, teacher={"model": "builtin:textcnn"})
    spaces = default_students(recipe, text_classifier("builtin:textcnn", embedding=64, filters=32), 1000)
    (space,) = spaces
    assert space.options == {"embedding": [64, 32, 16], "filters": [32, 16, 8]}


def test_they_are_trained_as_the_recipes_own_students_are() -> None:
    teacher = image_classifier(IMAGES, LABELS, model="builtin:cnn-16x32").eval()
    recipe = parse_recipe(content(), "tiny")
    own = recipe.students[0]
    assert {space.fit for space in default_students(recipe, teacher, 1000)} == {own.fit}
    assert {space.distill for space in default_students(recipe, teacher, 1000)} == {own.distill}
    alone = tomllib.loads('model = "builtin:cnn-16x32"\nfit = { epochs = 4, layer_decay = 0.5 }')
    (fit,) = {space.fit for space in default_students(recipe_of(teacher=alone), teacher, 1000)}
    assert (fit.epochs, fit.layer_decay) == (4, 1.0)


def test_what_a_control_alone_would_learn_by_is_left_out_of_a_search_without_controls() -> None:
    """Else the recipe that the search writes would be refused."""
    own = {"name": "mine", "model": "builtin:cnn-8", "fit": {"label_smoothing": 0.1, "epochs": 2}}
    recipe = recipe_of(students=[{**own, "distill": {"alpha": 1.0}}])
    spaces = default_students(recipe, image_classifier(IMAGES, LABELS, model="builtin:cnn-16x32"), 1000)
    tried = [one.student for space in spaces for one in designs_of(space) if space.name == "cnn"]
    for student in [recipe.students[0].without_control(), *tried]:
        assert (student.control, student.fit.of_labels, student.fit.epochs) == (False, (), 2)
        written = student.model_dump(mode="json")
        assert parse_recipe({**content(), "students": [written]}, "tiny").students == (student,)
    partly = recipe_of(students=[{**own, "distill": {"alpha": 0.9}}]).students[0]
    assert partly.without_control().fit.label_smoothing == 0.1
