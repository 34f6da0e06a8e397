"""What only the models themselves can say, asked before hours go into the teacher's training."""

from __future__ import annotations

from collections.abc import Callable

from compress.recipe import Recipe, Student, Teacher
from train.classifier import Classifier, ModelConfig
from train.models import check_teacher, takes_layers, without_widths
from train.progressive import check_progressive


def check_models(recipe: Recipe, new: Callable[[ModelConfig, Classifier | None], Classifier]) -> None:
    """Raise UserError for students that cannot be made of such a teacher, and models that cannot be trained as they

    should be. `new` makes a classifier that is not trained yet, with the teacher given or none; it is called only where
    a recipe asks for something to check.
    """
    takers = [student for student in recipe.students if takes_layers(student.model)]
    growing = [student for student in recipe.students if _grows(student)]
    if not takers and not growing and not _grows(recipe.teacher):
        return
    teacher = new(ModelConfig(model=recipe.teacher.model, options=recipe.teacher.options), None)
    check_progressive(recipe.teacher.fit, teacher)
    for student in takers:
        check_teacher(student.model, student.options, teacher)
    for student in growing:
        model = ModelConfig(model=student.model, options=without_widths(student.model, student.options))
        check_progressive(student.fit, new(model, teacher), teacher if student.distill is not None else None)


def _grows(model: Teacher | Student) -> bool:
    return bool(model.fit.grow_images) or model.fit.stack is not None
