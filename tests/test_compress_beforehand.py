"""Models that cannot be made or trained as a recipe says: told before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import image_classifier
from image_models import image_model
from text_models import text_classifier, tiny_folder
from tiny_run import content

from compress.beforehand import check_models
from compress.recipe_file import parse_recipe
from serve.errors import UserError
from train.classifier import Classifier, ModelConfig

IMAGES = np.zeros((4, 8, 8, 1), np.uint8)


def check_images(teacher: dict[str, Any], student: dict[str, Any]) -> None:
    def new(config: ModelConfig, teacher: Classifier | None) -> Classifier:
        return image_classifier(IMAGES, ("a", "b"), model=config.model, **config.options)

    check_models(parse_recipe({**content(), "teacher": teacher, "students": [{"name": "small", **student}]}, "t"), new)


GROW = {"epochs": 2, "grow_images": [0.5, 1.0]}


def test_images_that_grow_need_a_student_and_a_teacher_that_take_any_size() -> None:
    resnet, mlp = {"model": "builtin:resnet8"}, {"model": "builtin:mlp-8"}
    check_images(resnet, {**resnet, "fit": GROW, "distill": {}})
    check_images(mlp, {**resnet, "fit": GROW})  # the teacher never sees them
    check_images(mlp, {**resnet, "distill": {}})
    for teacher, student in (
        ({**mlp, "fit": GROW}, resnet),
        (resnet, {**mlp, "fit": GROW}),
        (mlp, {**resnet, "fit": GROW, "distill": {}}),
    ):
        with pytest.raises(UserError, match="'builtin:mlp-8' does not take images of 4x4 pixels"):
            check_images(teacher, student)


def test_every_teacher_must_take_images_that_grow() -> None:
    recipe: dict[str, Any] = {**content(), "teacher": {"model": "builtin:resnet8"}}
    recipe["teachers"] = [{"name": "second", "model": "builtin:mlp-8"}]
    student = {"name": "small", "model": "builtin:resnet8", "fit": GROW, "distill": {"teachers": ["teacher", "second"]}}

    def new(config: ModelConfig, teacher: Classifier | None) -> Classifier:
        return image_classifier(IMAGES, ("a", "b"), model=config.model, **config.options)

    with pytest.raises(UserError, match="'builtin:mlp-8' does not take images of 4x4 pixels"):
        check_models(parse_recipe({**recipe, "students": [student]}, "t"), new)


def test_colours_of_grey_images_are_told_of_students_too() -> None:
    cnn = {"model": "builtin:cnn-8"}
    with pytest.raises(UserError, match=r"fit\.augment\.hue changes colours, and the model sees these images in grey"):
        check_images(cnn, {**cnn, "fit": {"augment": {"hue": 0.1}}})
    check_images(cnn, {**cnn, "fit": {"augment": {"brightness": 0.1}}})


def test_what_is_left_of_a_teacher_must_have_layers_to_compute_again() -> None:
    def new(config: ModelConfig, teacher: Classifier | None) -> Classifier:
        if teacher is None:
            return image_classifier(IMAGES, ("a", "b"), model=config.model, **config.options)
        return image_model(config.model, ("a", "b"), teacher, **config.options)

    student = {"name": "small", "model": "teacher-channels:0.5", "options": {"importance": "magnitude"}}
    recipe = {**content(), "students": [{**student, "fit": {"gradient_checkpointing": True}}]}
    check_models(parse_recipe({**recipe, "teacher": {"model": "builtin:resnet8"}}, "t"), new)
    with pytest.raises(UserError, match=r"'teacher-channels:0\.5' has no layers to compute again"):
        check_models(parse_recipe({**recipe, "teacher": {"model": "builtin:cnn-16"}}, "t"), new)


def check_texts(folder: Path, student: dict[str, Any], *others: dict[str, Any]) -> None:
    recipe: dict[str, Any] = {**content(), "task": "text", "data": {"source": "csv:x.csv"}}
    recipe |= {"teacher": {"model": f"hf:{folder}"}, "students": [{"name": "small", **student}, *others]}

    def new(config: ModelConfig, teacher: Classifier | None) -> Classifier:
        return text_classifier(config.model, teacher=teacher, **config.options)

    check_models(parse_recipe(recipe, "test"), new)


def test_layers_that_are_stacked_must_be_there(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", layers=4)
    stack = {"epochs": 3, "stack": {"layers": [2], "epochs": [1]}}
    check_texts(folder, {"model": "teacher-layers:3", "fit": stack, "options": {"heads": 1}})
    with pytest.raises(UserError, match=r"starts with 2 layers, but 'teacher-layers:2' has 2"):
        check_texts(folder, {"model": "teacher-layers:2", "fit": stack})
    with pytest.raises(UserError, match=r"'builtin:textcnn' is no stack of layers"):
        check_texts(folder, {"model": "builtin:textcnn", "fit": stack})
    with pytest.raises(UserError, match=r"has 4 layers"):
        check_texts(folder, {"model": "teacher-layers:5"})


def test_what_does_not_go_together_is_refused_when_the_recipe_is_read(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", layers=4)
    with pytest.raises(UserError, match=r"grow_images is for images, the task is 'text'"):
        check_texts(folder, {"model": "teacher-layers:3", "fit": GROW})
    stack = {"epochs": 3, "stack": {"layers": [2], "epochs": [1]}}
    learning = {"distill": {"features": [{"loss": "hidden-states", "weight": 1.0}]}}
    with pytest.raises(UserError, match=r"student 'small': fit\.stack trains some of the layers"):
        check_texts(folder, {"model": "teacher-layers:3", "fit": stack, **learning})


def test_numbers_of_layers_mean_nothing_where_layers_go_in_steps(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", layers=4)

    def learning(layers: Any) -> dict[str, Any]:
        return {"distill": {"features": [{"loss": "hidden-states", "weight": 1.0, "layers": layers}]}}

    narrower = {"model": "teacher-layers:4", "options": {"ffn_width": 48, "steps": 2}}
    fewer: dict[str, Any] = {"model": "teacher-layers:2", "options": {"steps": 2}}
    numbered = {"fit": {"train_layers": ["model.bert.encoder.layer.1", "head"]}}
    check_texts(folder, {**fewer, **learning("all")})
    check_texts(folder, {**fewer, "options": {}, **learning([[1, 3]])})
    check_texts(folder, {**narrower, **learning([[1, 1]])})
    for student in (learning([[1, 3]]), numbered):
        with pytest.raises(UserError, match=r"'small': .* by number, but 'teacher-layers:2' loses layers in several"):
            check_texts(folder, {**fewer, **student})


def test_layers_that_a_student_does_not_have_are_told_at_once() -> None:
    student = {"model": "builtin:cnn-8", "fit": {"train_layers": ["head2"]}}
    with pytest.raises(UserError, match=r"'small': fit\.train_layers: nothing in the network is called 'head2'"):
        check_images({"model": "builtin:resnet8"}, student)
    check_images({"model": "builtin:resnet8"}, {**student, "fit": {"train_layers": "head"}})


def test_what_cannot_be_compared_inside_is_told_at_once(tmp_path: Path) -> None:
    def learning(loss: str) -> dict[str, Any]:
        return {"distill": {"features": [{"loss": loss, "weight": 1.0}]}}

    folder = tiny_folder(tmp_path / "model", layers=4)
    check_texts(folder, {"model": "teacher-layers:2", **learning("relations")})
    with pytest.raises(
        UserError, match=r"'builtin:textcnn' and its teacher '.*' prepare their input in different ways"
    ):
        check_texts(folder, {"model": "builtin:textcnn", **learning("hidden-states")})
    check_images({"model": "builtin:resnet8"}, {"model": "builtin:resnet8", **learning("hints")})
    with pytest.raises(UserError, match="'builtin:mlp-8'"):
        check_images({"model": "builtin:resnet8"}, {"model": "builtin:mlp-8", **learning("hints")})


def test_heads_that_go_cannot_be_compared_one_by_one(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", layers=4)
    for loss, heads in (("attention", 2), ("relations", 1)):
        learning = {"distill": {"features": [{"loss": loss, "weight": 1.0}]}, "options": {"heads": heads}}
        check_texts(folder, {"model": "teacher-layers:2", **learning})
    learning = {"distill": {"features": [{"loss": "attention", "weight": 1.0}]}, "options": {"heads": 1}}
    with pytest.raises(UserError, match=r"'teacher-layers:2' has 1 heads and its teacher 'hf:.*' 2"):
        check_texts(folder, {"model": "teacher-layers:2", **learning})


def learning_from(name: str, loss: str) -> dict[str, Any]:
    return {"distill": {"teachers": [name], "features": [{"loss": loss, "weight": 1.0}]}}


def test_a_student_that_teaches_is_compared_with_the_heads_that_it_will_have(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", layers=4)
    middle = {"name": "middle", "model": "teacher-layers:3", "options": {"heads": 1}, "distill": {}}
    learning = {"model": "teacher-layers:2", **learning_from("middle", "attention")}
    for options in ({"heads": 1}, {"heads": 1, "ffn_width": 48, "steps": 2}):
        check_texts(folder, {**learning, "options": options}, middle)
    with pytest.raises(UserError, match=r"'teacher-layers:2' has 2 heads and its teacher 'teacher-layers:3' 1"):
        check_texts(folder, learning, middle)
    check_texts(folder, {"model": "teacher-layers:2", **learning_from("middle", "relations")}, middle)


def test_a_student_whose_vocabulary_is_trimmed_teaches_by_its_answers_alone(tmp_path: Path) -> None:
    folder, seen = tiny_folder(tmp_path / "model", layers=4), {"prune": {"vocabulary": "seen"}}
    middle = {"name": "middle", "model": "teacher-layers:3", "distill": {}, **seen}
    check_texts(folder, {"model": "teacher-layers:2", "distill": {"teachers": ["middle"]}}, middle)
    check_texts(folder, {"model": "teacher-layers:2", **learning_from("teacher", "hidden-states"), **seen}, middle)
    with pytest.raises(UserError, match=r"'small': .* look into 'middle', whose vocabulary is trimmed"):
        check_texts(folder, {"model": "teacher-layers:2", **learning_from("middle", "hidden-states")}, middle)


def test_a_vocabulary_that_cannot_be_trimmed_is_told_at_once(tmp_path: Path) -> None:
    folder, seen = tiny_folder(tmp_path / "model", layers=4), {"prune": {"vocabulary": "seen"}}
    check_texts(folder, {"model": "teacher-layers:2", **seen})
    with pytest.raises(UserError, match=r"prune\.vocabulary .* 'builtin:textcnn' is none"):
        check_texts(folder, {"model": "builtin:textcnn", **seen})


def test_a_student_that_was_never_trained_is_not_taken_as_it_is() -> None:
    with pytest.raises(UserError, match="'builtin:cnn-8' as it is, but it was never trained"):
        check_images({"model": "builtin:resnet8"}, {"model": "builtin:cnn-8", "fit": {"epochs": 0}})
