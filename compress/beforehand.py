"""What only the models themselves can say, asked before hours go into the teacher's training."""

from __future__ import annotations

from collections.abc import Callable

from compress.recipe import TEACHER, NamedTeacher, Recipe, Student, Teacher
from compress.teachers import teachers_of
from train.classifier import Classifier, ModelConfig
from train.models import check_teacher, takes_channels, takes_layers, without_widths
from train.progressive import check_progressive


def check_models(recipe: Recipe, new: Callable[[ModelConfig, Classifier | None], Classifier]) -> None:
    """Raise UserError for students that cannot be made of such a teacher, and models that cannot be trained as asked.

    `new` makes a classifier that is not trained yet, with the teacher given or none; it is called only where a recipe
    asks for something to check.
    """
    takers = [student for student in recipe.students if takes_layers(student.model) or takes_channels(student.model)]
    models: list[NamedTeacher | Student] = [*recipe.teachers, *recipe.students]
    growing = [model for model in models if _grows(model)]
    if not takers and not growing and not _grows(recipe.teacher):
        return
    teacher = new(ModelConfig(model=recipe.teacher.model, options=recipe.teacher.options), None)
    check_progressive(recipe.teacher.fit, teacher)
    for student in takers:
        check_teacher(student.model, student.options, teacher)
    for grown in growing:
        model = ModelConfig(model=grown.model, options=without_widths(grown.model, grown.options))
        asked = isinstance(grown, Student) and TEACHER in teachers_of(grown)
        check_progressive(grown.fit, new(model, teacher), teacher if asked else None)


def _grows(model: Teacher | Student) -> bool:
    return bool(model.fit.grow_images) or model.fit.stack is not None
