"""Who learns from whom: further teachers, students that teach students, and models that are the teacher's own.

A student may be the teacher of another: a teacher assistant (Mirzadeh et al. 2019, arXiv 1902.03393), or one generation
of the same network after the other (born-again networks, Furlanello et al. 2018, arXiv 1805.04770).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serve.errors import SettingError, did_you_mean
from train.models import needs_teacher

if TYPE_CHECKING:
    from compress.optimize.config import StudentSpace
    from compress.recipe import NamedTeacher, Recipe, Student, Teacher

TEACHER = "teacher"  # the main one: what all evidence compares with


def with_models_named(content: Any) -> Any:
    """The content of a recipe in which `model = "teacher"` is written out: the teacher's model and options, untrained.

    Raises ValueError where the teacher's model is trained already, for there is nothing then to start from again.
    """
    if not isinstance(content, dict) or not isinstance(teacher := content.get(TEACHER), dict):
        return content
    changed = dict(content)
    for key in ("teachers", "students"):
        if isinstance(models := content.get(key), list | tuple):
            changed[key] = [_named(model, teacher) for model in models]
    return changed


def _named(model: Any, teacher: dict[str, Any]) -> Any:
    if not isinstance(model, dict) or model.get("model") != TEACHER or "model" not in teacher:
        return model
    fit = teacher.get("fit", {})
    if str(teacher["model"]).startswith("run:") or (isinstance(fit, dict) and fit.get("epochs") == 0):
        raise SettingError(
            f"'{model.get('name')}' is to begin where the teacher began, but '{teacher['model']}' is taken as it was "
            "trained elsewhere",
            "name the model that it was made from",
        )
    options = {**teacher.get("options", {}), **model.get("options", {})}
    return {**model, "model": teacher["model"], "options": options}


def check_teachers(recipe: Recipe) -> None:
    """Raise ValueError for names taken twice or unknown, and teachers that are alike, teach nobody or in a circle."""
    _check_names(recipe)
    known = [TEACHER, *(teacher.name for teacher in recipe.teachers), *(student.name for student in recipe.students)]
    searched = (recipe.optimize.students if recipe.optimize is not None else None) or ()
    asked = {name for student in recipe.students for name in teachers_of(student)}
    asked |= {name for student in searched for name in teachers_of(student)}
    for student in recipe.students:
        for name in teachers_of(student):
            if name == student.name:
                raise SettingError(
                    f"student '{name}' cannot be its own teacher", "name another model in distill.teachers"
                )
            if name not in known:
                others = [other for other in known if other != student.name]
                raise SettingError(
                    f"student '{student.name}': distill.teachers names '{name}', which is no model of the recipe",
                    did_you_mean(name, others),
                )
    for teacher in recipe.teachers:
        if needs_teacher(teacher.model, teacher.options):
            raise SettingError(
                f"'{teacher.model}' is a student of some teacher, so it cannot be teacher '{teacher.name}'",
                "name another model; a student of [[students]] may teach too",
            )
        if teacher.name not in asked:
            raise SettingError(
                f"teacher '{teacher.name}' teaches nobody", "name it in a student's distill.teachers, or leave it out"
            )
    _check_twins(recipe)
    in_order(recipe.students)


def _check_names(recipe: Recipe) -> None:
    names = [TEACHER, *(teacher.name for teacher in recipe.teachers), *(student.name for student in recipe.students)]
    for name in names:
        if names.count(name) > 1:
            raise SettingError(f"two models are called '{name}'", "rename one")


def _check_twins(recipe: Recipe) -> None:
    """Refuse teachers that would be trained to the very same weights."""
    seen: list[tuple[str, Any]] = []
    for name, teacher in all_teachers(recipe).items():
        training = (teacher.model, teacher.options, teacher.fit, seed_of(recipe, teacher))
        twin = next((other for other, its in seen if its == training), None)
        if twin is not None:
            raise SettingError(
                f"teachers '{twin}' and '{name}' would be the same model", f"give '{name}' a seed_offset"
            )
        seen.append((name, training))


def all_teachers(recipe: Recipe) -> dict[str, Teacher]:
    """The main teacher and the further ones, by name."""
    return {TEACHER: recipe.teacher, **{teacher.name: teacher for teacher in recipe.teachers}}


def teachers_of(student: Student | StudentSpace) -> tuple[str, ...]:
    """The names of those whose answers it learns from."""
    return () if student.distill is None else student.distill.teachers


def seed_of(recipe: Recipe, model: Teacher | NamedTeacher | Student) -> int:
    """The recipe's seed, or another by the model's `seed_offset`, which goes along where the recipe's is changed."""
    return int(recipe.seed + getattr(model, "seed_offset", 0)) % 2**32


def in_order(students: tuple[Student, ...]) -> list[Student]:
    """Every student after those that teach it, else as the recipe has them. Raises ValueError for a circle."""
    waiting = {student.name: student for student in students}
    done: list[Student] = []
    while waiting:
        ready = [one for one in waiting.values() if not any(name in waiting for name in teachers_of(one))]
        if not ready:
            raise SettingError(
                f"students that teach one another in a circle: {', '.join(_circle(waiting))}",
                "take one of them out of another's distill.teachers",
            )
        done.append(ready[0])
        del waiting[ready[0].name]
    return done


def _circle(waiting: dict[str, Student]) -> list[str]:
    """The names of one circle among students that all wait for another of them."""
    path = [next(iter(waiting))]
    while (following := next(name for name in teachers_of(waiting[path[-1]]) if name in waiting)) not in path:
        path.append(following)
    return path[path.index(following) :]
