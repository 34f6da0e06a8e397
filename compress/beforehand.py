"""What only the models themselves can say, asked before hours go into the teacher's training."""

from __future__ import annotations

from collections.abc import Callable

from compress.recipe import Recipe
from train.classifier import Classifier, ModelConfig
from train.models import check_teacher, takes_layers


def check_models(recipe: Recipe, new: Callable[[ModelConfig], Classifier]) -> None:
    """Raise UserError for students that cannot be made of such a teacher.

    `new` makes a classifier that is not trained yet; it is called only where a recipe asks for something to check.
    """
    takers = [student for student in recipe.students if takes_layers(student.model)]
    if not takers:
        return
    teacher = new(ModelConfig(model=recipe.teacher.model, options=recipe.teacher.options))
    for student in takers:
        check_teacher(student.model, student.options, teacher)
