"""The recipe that a search writes can be run, and searched again."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from compress.optimize import command
from compress.optimize.config import OptimizeConfig
from compress.optimize.records import Trial
from compress.optimize.resolve import as_toml, resolved_recipe
from compress.optimize.students import check_students
from compress.recipe import Recipe
from compress.recipe_file import parse_recipe
from serve.errors import UserError

SPACE: dict[str, Any] = {"name": "searched", "model": "builtin:cnn-2"}


SECOND: dict[str, Any] = {"name": "second", "model": "teacher", "seed_offset": 1}


def recipe_of(
    names: list[str],
    lesson: dict[str, Any],
    own: list[dict[str, Any]] | None = None,
    teachers: list[dict[str, Any]] | None = None,
) -> Recipe:
    return parse_recipe(
        {
            "name": "tiny",
            "data": {"source": "digits", "unlabelled": {"source": "csv:x.csv"}},
            "teacher": {"model": "builtin:cnn-8x16"},
            "teachers": [SECOND, *(teachers or [])],
            "students": own or [],
            "accept": {"max_drop_points": 1.0},
            "optimize": {"students": [{**SPACE, "name": name, "distill": lesson} for name in names]},
        },
        "tiny",
    )


def settled(recipe: Recipe) -> OptimizeConfig:
    """[optimize] as a search writes it out."""
    assert recipe.optimize is not None
    check_students(recipe, recipe.optimize)
    return command._resolved(recipe.optimize, recipe, Path("not-there"), 100, ("fp32",))


def written_for_the_teacher(recipe: Recipe) -> Recipe:
    """What a search writes that chose the teacher itself, read again."""
    chosen = Trial(
        number=1,
        id="teacher-fp32",
        model="teacher",
        source="builtin:cnn-8x16",
        options={},
        precision="fp32",
        state="complete",
        feasible=True,
        why="",
    )
    written = as_toml(resolved_recipe(recipe, settled(recipe), chosen, None), "")
    return parse_recipe(tomllib.loads(written), "again")


@pytest.mark.parametrize(
    "lesson", [{"teachers": ["second"]}, {"teachers": ["second"], "items": "unlabelled", "alpha": 1.0}]
)
def test_what_the_searched_students_learn_from_stays_whoever_is_chosen(lesson: dict[str, Any]) -> None:
    recipe = recipe_of(["searched"], lesson)
    again = written_for_the_teacher(recipe)
    assert again.optimize is not None
    check_students(again, again.optimize)
    assert again.data.unlabelled == recipe.data.unlabelled
    assert again.teachers == recipe.teachers


@pytest.mark.parametrize("lesson", [{"items": "labelled"}, {"items": "labelled", "teachers": ["third"]}])
def test_what_only_a_student_learnt_from_that_was_not_chosen_goes(lesson: dict[str, Any]) -> None:
    """Else the recipe would be refused: a teacher that teaches nobody, items that nobody learns from."""
    own = [
        {"name": "own", "model": "builtin:cnn-2", "distill": {"teachers": ["second"]}},
        {"name": "other", "model": "builtin:cnn-2", "distill": {"items": "labelled", "teachers": ["third"]}},
    ]
    again = written_for_the_teacher(
        recipe_of(["searched"], lesson, own, [{**SECOND, "name": "third", "seed_offset": 2}])
    )
    assert again.data.unlabelled is None
    assert [teacher.name for teacher in again.teachers] == lesson.get("teachers", [])


def test_no_student_of_the_search_is_called_as_a_model_of_the_recipe() -> None:
    """Nor longer than a recipe takes, since the search writes it into one."""
    names = ["second", "second-2", "a-name-of-20-letters", "free"]
    own = [{"name": "a-name-of-20-letters", "model": "builtin:cnn-2", "distill": {"teachers": ["second"]}}]
    resolved = settled(recipe_of(names, {}, own))
    assert resolved.students is not None
    assert [space.name for space in resolved.students] == ["second-3", "second-2", "a-name-of-20-lette-2", "free"]
    OptimizeConfig.model_validate(resolved.model_dump())


def test_a_student_of_the_search_that_asks_another_student_is_refused_by_name() -> None:
    """Before any training: a search trains students in no order, and not all of them."""
    own = [{"name": "own", "model": "builtin:cnn-2", "distill": {"teachers": ["second"]}}]
    with pytest.raises(UserError, match=r"'searched' .* learn from 'own', another student") as caught:
        settled(recipe_of(["searched"], {"teachers": ["own"]}, own))
    assert "[[teachers]]" in caught.value.hint
