"""The students of a search: the recipe's own, and the entries of [[optimize.students]] by names that are free."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from compress.optimize.config import SPACE_NAME_LENGTH, OptimizeConfig, StudentSpace
from compress.optimize.space import designs_of
from compress.recipe import TEACHER, Recipe, Student
from compress.recipe_file import parse_recipe
from compress.teachers import teachers_of
from serve.errors import UserError


def own_students(recipe: Recipe) -> tuple[list[Student], list[str]]:
    """The recipe's own students that can be tried, and why others are not."""
    teachers = {TEACHER, *(teacher.name for teacher in recipe.teachers)}
    own, left_out = [], []
    for student in recipe.students:
        if student.role != "student":
            continue
        strange = [name for name in teachers_of(student) if name not in teachers]
        if strange:
            left_out.append(f"{student.name} is not tried: it learns from another student, {strange[0]}")
        else:
            own.append(student.without_control())
    return own, left_out


def check_students(recipe: Recipe, config: OptimizeConfig) -> None:
    """Raise UserError for students of [optimize] that the recipe could not have as its own."""
    content = recipe.model_dump(mode="json")
    own = {student.name for student in recipe.students}
    for space in named_anew(config.students or (), recipe):
        strange = next((name for name in teachers_of(space) if name in own), None)
        if strange is not None:
            raise UserError(
                f"student '{space.name}' of [[optimize.students]] is to learn from '{strange}', another student, which "
                "a search may never train",
                f"name '{TEACHER}' in its distill.teachers, or one of [[teachers]]",
            )
        models = [space.model] if isinstance(space.model, str) else space.model
        for model in models:
            one = next(designs_of(space.model_copy(update={"model": model}))).student
            tried = one.model_copy(update={"name": space.name}).model_dump(mode="json")
            parse_recipe({**content, "students": [*content["students"], tried]}, "[[optimize.students]]")


def named_anew(spaces: Sequence[StudentSpace], recipe: Recipe) -> tuple[StudentSpace, ...]:
    """The entries of [[optimize.students]], none with the name of a model of the recipe's own."""
    own = {TEACHER, *(teacher.name for teacher in recipe.teachers), *(student.name for student in recipe.students)}
    taken = own | {space.name for space in spaces}
    return tuple(
        space.model_copy(update={"name": _free_name(space.name, taken)}) if space.name in own else space
        for space in spaces
    )


def _free_name(name: str, taken: set[str]) -> str:
    """`name` with the first number that makes it one of its own, no longer than an entry's may be."""
    numbered = (f"{name[: SPACE_NAME_LENGTH - 1 - len(str(at))]}-{at}" for at in itertools.count(2))
    return next(one for one in numbered if one not in taken)
