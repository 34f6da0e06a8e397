"""Further teachers, students that teach, and students that are their teacher's own network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import image_classifier
from test_compress_stages_training import FIT, tiny
from text_models import text_classifier, tiny_folder, wanted
from tiny_run import run_content, train_content, weights

from compress.recipe import Recipe
from compress.recipe_file import parse_recipe
from compress.teachers import in_order
from compress.variants import baseline, further_teachers, packaged_variants, parents
from serve.errors import UserError
from train.classifier import Classifier, ModelConfig, load_classifier, new_classifier

SECOND = {"name": "second", "model": "builtin:mlp-24", "fit": FIT}


def taught(name: str, *teachers: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "distill": {"teachers": list(teachers)}, "control": False, **changes}


def parsed(*students: dict[str, Any], **changes: Any) -> Recipe:
    return parse_recipe(tiny(*students, **changes), "tiny")


@pytest.mark.parametrize(
    ("students", "teachers", "message"),
    [
        ([taught("a", "secnd")], [SECOND], "did you mean 'second'"),
        ([taught("a", "a")], [], "cannot be its own teacher"),
        ([taught("a", "b"), taught("b", "c"), taught("c", "a")], [], "in a circle: a, b, c"),
        ([taught("x", "b"), taught("b", "c"), taught("c", "b")], [], "in a circle: b, c"),
        ([taught("a", "teacher")], [SECOND], "teaches nobody"),
        ([taught("second", "teacher")], [SECOND], "two models are called 'second'"),
        ([taught("a", "teacher")], [{**SECOND, "name": "teacher"}], "two models are called 'teacher'"),
        ([taught("a", "second")], [{**SECOND, "model": "teacher"}], "would be the same model"),
        ([taught("a", "second")], [{**SECOND, "model": "teacher-layers:2"}], "cannot be"),
        ([taught("a", "second")], [{**SECOND, "options": {"image_size": 12}}], "'second' has an image_size"),
    ],
)
def test_what_cannot_teach_is_refused_when_the_recipe_is_read(
    students: list[dict[str, Any]], teachers: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(UserError) as refused:
        parsed(*students, teachers=teachers)
    assert re.search(message, f"{refused.value} {refused.value.hint}")


def test_a_teacher_may_teach_only_students_that_a_search_tries() -> None:
    searched = {"name": "s", "model": ["builtin:mlp-4", "builtin:mlp-8"], "distill": {"teachers": ["second"]}}
    recipe = parsed(taught("a", "teacher"), teachers=[SECOND], optimize={"students": [searched]})
    assert [teacher.name for teacher in recipe.teachers] == ["second"]


def test_students_come_after_those_that_teach_them_and_else_as_they_are_written() -> None:
    recipe = parsed(taught("c", "b", "teacher"), {"name": "plain"}, taught("b", "a"), taught("a", "teacher"))
    assert [student.name for student in in_order(recipe.students)] == ["plain", "a", "b", "c"]


def test_variants_name_whom_they_learned_from() -> None:
    recipe = parsed(
        taught("a", "teacher"), taught("b", "second", "a"), teachers=[SECOND], quantize={"precisions": ["fp32"]}
    )
    variants = [baseline(), *further_teachers(recipe), *packaged_variants(recipe)]
    assert {variant.id: parents(variant) for variant in variants} == {
        "teacher-torch": [],
        "second-torch": [],
        "teacher-fp32": ["teacher-torch"],
        "a-fp32": ["teacher-torch"],
        "b-fp32": ["second-torch", "a-fp32"],
    }


def test_the_teachers_model_stands_for_its_name_and_options() -> None:
    recipe = tiny(taught("born", "teacher", model="teacher", options={"hidden": 9}, seed_offset=4))
    recipe["teacher"] = {"model": "builtin:cnn-8", "options": {"hidden": 12}, "fit": FIT}
    student = parse_recipe(recipe, "tiny").students[0]
    assert (student.model, student.options, student.seed_offset) == ("builtin:cnn-8", {"hidden": 9}, 4)


@pytest.mark.parametrize("teacher", [{"model": "run:runs/x"}, {"model": "hf:somewhere", "fit": {"epochs": 0}}])
def test_there_is_no_beginning_of_a_model_that_was_trained_elsewhere(teacher: dict[str, Any]) -> None:
    recipe = tiny(taught("born", "teacher", model="teacher"))
    recipe["teacher"] = teacher
    with pytest.raises(UserError, match="is taken as it was trained elsewhere"):
        parse_recipe(recipe, "tiny")


def same(one: Classifier, other: Classifier) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("kind", ["textcnn", "transformer"])
def test_a_text_student_of_the_teachers_model_begins_where_the_teacher_began(tmp_path: Path, kind: str) -> None:
    model = "builtin:textcnn" if kind == "textcnn" else f"hf:{tiny_folder(tmp_path / 'model')}"
    start, teacher = text_classifier(model), text_classifier(model)
    with torch.no_grad():  # it was trained
        for parameter in teacher.parameters():
            parameter += 0.1
    student = text_classifier(model, teacher=teacher)
    assert same(student, start)
    assert not same(student, teacher)
    assert student.files == start.files
    other = new_classifier(ModelConfig(model=model), wanted(seed=2))
    head = [name for name, value in other.state_dict().items() if not torch.equal(value, start.state_dict()[name])]
    assert head  # of another seed: all of a new network, the head alone of a pretrained one
    assert (len(head) == len(start.state_dict())) <= (kind == "textcnn")


def test_generations_of_one_network_begin_alike_or_by_a_seed_of_their_own(tmp_path: Path) -> None:
    recipe = tiny(
        taught("second-born", "first-born", model="teacher", seed_offset=8),
        taught("first-born", "teacher", model="teacher"),
    )
    console, fits = train_content(recipe, tmp_path / "run")
    assert list(console.states) == ["teacher", "students/first-born", "students/second-born"]
    assert list(fits) == ["teacher", "second-born", "first-born"]
    models = {path: load_classifier(tmp_path / "run" / path) for path in console.states}
    assert len({model.spec.network.model_dump_json() for model in models.values()}) == 1
    assert not any(same(models["teacher"], models[path]) for path in models if path != "teacher")


def test_what_a_student_learned_from_makes_it_train_again_and_nobody_else(tmp_path: Path) -> None:
    students = (taught("small", "teacher"), taught("both", "teacher", "second"), taught("last", "both"))
    recipe = tiny(*students, teachers=[SECOND])
    console, _ = train_content(recipe, tmp_path / "run")
    assert set(console.states) == {"teacher", "teachers/second", *(f"students/{one['name']}" for one in students)}
    assert train_content(recipe, tmp_path / "run")[0].redone == set()
    recipe["teachers"] = [{**SECOND, "seed_offset": 9}]
    assert train_content(recipe, tmp_path / "run")[0].redone == {"teachers/second", "students/both", "students/last"}


def test_a_recipe_that_names_no_teacher_is_that_of_before(tmp_path: Path) -> None:
    plain = tiny({"name": "small", "distill": {}, "control": False})
    train_content(plain, tmp_path / "run")
    named = tiny(taught("small", "teacher"), teachers=[])
    named["students"][0]["seed_offset"] = 0
    assert train_content(named, tmp_path / "run")[0].redone == set()


def test_a_second_teacher_is_in_the_report_and_is_never_the_choice(tmp_path: Path) -> None:
    recipe = tiny(taught("small", "teacher", "second"), teachers=[SECOND])
    recipe |= {"quantize": {"precisions": ["fp32"]}, "evaluate": {"batch_sizes": [1], "latency_samples": 20}}
    ran = run_content(recipe, tmp_path / "run", memory=False)
    second = ran.report.variant("second-torch")
    assert (second.role, second.runtime, second.package_id) == ("teacher", "torch", None)
    assert 0.1 < second.accuracy <= 1
    assert second.params == image_classifier_params()
    assert second.size_bytes == len(weights(tmp_path / "run")["teachers/second/model.safetensors"])
    assert ran.report.variant("small-fp32").parents == ["teacher-torch", "second-torch"]
    assert ran.report.baseline == "teacher-torch"
    assert {row.id for row in ran.report.choice.ranking} == {"teacher-fp32", "small-fp32"}
    assert "second-torch" in (tmp_path / "run/report.html").read_text()


def image_classifier_params() -> int:
    images = np.zeros((1, 8, 8, 1), dtype=np.uint8)
    return image_classifier(images, tuple("0123456789"), model="builtin:mlp-24").params
