"""Whether a recipe's [tune] can be searched at all, asked before anything is trained."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from compress.recipe import TEACHER, Recipe
from compress.recipe_file import apply_change, as_change, parse_recipe
from compress.variants import HELD_OUT
from serve.errors import UserError, did_you_mean
from train.classifier import read_spec
from train.tuning.config import TuneConfig
from train.tuning.space import space_of

_TRAINED = ("model", "options", "fit")  # what training a model depends on
_OF_STUDENTS = ("distill", "prune")  # what a student is judged by besides
_EXAMPLE = (
    '[tune]\nmodel = "teacher"\n[tune.search]\n"teacher.fit.learning_rate" = { low = 1e-4, high = 1e-2, log = true }'
)


def check_tune(content: dict[str, Any], origin: str, teacher_given: bool = False) -> tuple[Recipe, TuneConfig]:
    """The recipe and its [tune], every field of the search tried with its bounds. Raises UserError."""
    recipe = parse_recipe(content, origin)
    config = recipe.tune
    if config is None:
        raise UserError(f"{origin} has no [tune] table", f"write one, for example:\n{_EXAMPLE}")
    names = [TEACHER, *_students(content)]
    if config.model not in names:
        raise UserError(f"{origin}: tune.model = '{config.model}' is no model of it", did_you_mean(config.model, names))
    for field, entry in space_of(config.search).items():
        _check_reach(field, config.model, _students(content), teacher_given)
        for value in entry.probes:
            with_value(content, origin, field, value)
    return recipe, config


def check_teacher(run: Path, recipe: Recipe, classes: tuple[str, ...]) -> Path:
    """The folder of the teacher that `run` trained. Raises UserError where it is none for these classes."""
    folder = run / TEACHER
    if (run / HELD_OUT / TEACHER).is_dir():  # the other one was refitted: it has seen validation, which judges trials
        folder = run / HELD_OUT / TEACHER
    if not folder.is_dir():
        raise UserError(f"there is no teacher in {run}", "expected a run directory, for example runs/digits")
    spec = read_spec(folder)
    if tuple(spec.labels) != classes:
        raise UserError(f"the teacher of {run} knows other classes than the data", "take a run on the same data")
    if spec.model != recipe.teacher.model:
        raise UserError(
            f"the teacher of {run} is '{spec.model}', the recipe's is '{recipe.teacher.model}'",
            "take a run of this recipe, or leave out --teacher-from",
        )
    return folder


def _students(content: dict[str, Any]) -> list[str]:
    """The students that are written down; the controls beside them have no table to change."""
    return [student["name"] for student in content.get("students", [])]


def _check_reach(field: str, model: str, students: list[str], teacher_given: bool) -> None:
    """Refuse a field that the tuned model's training does not depend on: its trials would all be alike."""
    parts = field.split(".")
    if parts[-2:] == ["fit", "final_refit"]:
        raise UserError(
            f"tune.search: '{field}' makes no trial better or worse: a refitted model cannot be judged on validation",
            "leave it out; set it in the recipe, and the run refits",
        )
    if len(parts) > 1 and parts[0] == TEACHER and parts[1] in _TRAINED:
        if teacher_given and model != TEACHER:
            raise UserError(
                f"tune.search: '{field}' cannot be searched with --teacher-from", "leave out one of the two"
            )
        return
    if parts[0] == "students" and len(parts) > 2 and model != TEACHER:
        if parts[1] not in students and parts[1] != "*" and not parts[1].isdigit():
            raise UserError(f"tune.search: there is no student '{parts[1]}'", did_you_mean(parts[1], students))
        meant = parts[1] in ("*", model) or (parts[1].isdigit() and students[int(parts[1]) :][:1] == [model])
        if meant and parts[2] in (*_TRAINED, *_OF_STUDENTS):
            return
    own = TEACHER if model == TEACHER else f"students.{model}"
    known = [f"{own}.{name}" for name in (*_TRAINED, *(() if model == TEACHER else _OF_STUDENTS))]
    raise UserError(
        f"tune.search: '{field}' is nothing that the training of '{model}' depends on",
        f"a search is over fields of {', '.join(known)}",
    )


def with_value(content: dict[str, Any], origin: str, field: str, value: Any) -> Recipe:
    """The recipe with a value of the search in it. Raises UserError where it is none for this field."""
    changed = copy.deepcopy(content)
    try:
        apply_change(changed, as_change(field, value))
        return parse_recipe(changed, origin)
    except UserError as error:
        raise UserError(f'tune.search."{field}" = {value!r}: {error.message}', error.hint) from None
