"""What only the models themselves can say, asked before hours go into the teacher's training."""

from __future__ import annotations

import re
from collections.abc import Callable

from compress.recipe import TEACHER, NamedTeacher, Recipe, Student, Teacher
from compress.teachers import all_teachers, teachers_of
from serve.errors import UserError
from serve.manifest import ImagePreprocessing
from train.arguments import training_device
from train.augment.images import check_channels, recolours
from train.classifier import Classifier, ModelConfig
from train.compiled import check_compiler
from train.data import Data
from train.distill.lesson import check_features
from train.draft import Widths
from train.fit import check_trained
from train.fit_config import FitConfig
from train.layers import check_layers
from train.losses import class_weights
from train.models import (
    check_teacher,
    cuts_layers_in_steps,
    needs_teacher,
    takes_channels,
    takes_layers,
    without_widths,
)
from train.precision import check_precision
from train.progressive import check_progressive
from train.prune import check_prunable
from train.recompute import recomputed_layers

New = Callable[[ModelConfig, Classifier | None], Classifier]


def check_trainings(recipe: Recipe, data: Data, new: New) -> None:
    """Raise UserError for what data, machine or models do not allow, before the first of them is trained for hours.

    `new` makes a classifier that is not trained yet, with the teacher given or none.
    """
    models: list[Teacher | Student] = [*all_teachers(recipe).values(), *recipe.students]
    for model in models:
        class_weights(model.fit.class_weights, data.classes, data.splits["train"].labels)
        if isinstance(model, Student) and model.distill is not None:
            model.distill.check_classes(len(data.classes))
        if model.fit.epochs:
            check_precision(model.fit.precision, training_device())
        if model.fit.epochs and model.fit.compile:
            check_compiler(training_device())
    check_models(recipe, new)


def check_models(recipe: Recipe, new: New) -> None:
    """Raise UserError for students that cannot be made of such a teacher, and models that cannot be trained as asked.

    `new` makes a classifier that is not trained yet, with the teacher given or none; it is called only where a recipe
    asks for something to check.
    """
    drafts = _Drafts(recipe, new)
    for name, model in drafts.models.items():
        if takes_layers(model.model) or takes_channels(model.model):
            check_teacher(model.model, model.options, drafts[TEACHER])
            if isinstance(model, Student) and cuts_layers_in_steps(model.model, model.options, drafts[TEACHER]):
                _check_numbers(model)
        if model.fit.epochs == 0 and name != TEACHER and not needs_teacher(model.model, model.options):
            check_trained(drafts[name])
        if _grows(model):
            check_progressive(model.fit, drafts[name])
            for teacher in teachers_of(model) if isinstance(model, Student) else ():
                check_progressive(model.fit, drafts[name], drafts[teacher])
        if model.fit.epochs and model.fit.gradient_checkpointing:
            recomputed_layers(drafts[name])
        if model.fit.epochs and recolours(model.fit.augment):
            _check_colours(model.fit, drafts[name])
        if _is_choosy(model.fit):
            try:
                check_layers(model.fit, drafts[name])
            except UserError as error:
                raise UserError(f"'{name}': {error.message}", error.hint) from None
        if isinstance(model, Student) and model.fit.epochs and model.distill is not None and model.distill.features:
            first = teachers_of(model)[0]
            check_features(drafts[name], drafts[first], model.distill.features)
            _check_vocabulary(model, drafts.models[first], first)
        if isinstance(model, Student) and model.prune.is_active:
            check_prunable(drafts[name])


class _Drafts:
    """The recipe's models by name, not trained yet, each made when it is first asked for."""

    def __init__(self, recipe: Recipe, new: New) -> None:
        self.models: dict[str, Teacher | NamedTeacher | Student] = dict(all_teachers(recipe))
        self.models |= {student.name: student for student in recipe.students}
        self._new = new
        self._known: dict[str, Classifier] = {}

    def __getitem__(self, name: str) -> Classifier:
        if name not in self._known:
            model = self.models[name]
            teacher = None if name == TEACHER else self[TEACHER]
            config = ModelConfig(model=model.model, options=without_widths(model.model, model.options))
            self._known[name] = _with_heads(self._new(config, teacher), model)
        return self._known[name]


def _with_heads(draft: Classifier, model: Teacher | Student) -> Classifier:
    """The draft, which still has all heads of its teacher, said to have as many as the model will have."""
    heads = model.options.get("heads")
    if takes_layers(model.model) and heads is not None:
        network = draft.spec.network.model_copy(update={"widths": Widths(heads=heads)})
        draft.spec = draft.spec.model_copy(update={"network": network})
    return draft


def _check_colours(config: FitConfig, draft: Classifier) -> None:
    """Raise UserError where colours are to be changed and the model sees none."""
    if isinstance(draft.spec.preprocessing, ImagePreprocessing):
        check_channels(config.augment, draft.spec.preprocessing.shape[-1])


def _check_numbers(student: Student) -> None:
    """Raise UserError where layers go by number: before the last step of pruning a number means another layer."""
    features = () if student.distill is None else student.distill.features
    named = () if isinstance(student.fit.train_layers, str) else student.fit.train_layers
    if any(not isinstance(feature.layers, str) for feature in features):
        told, hint = "[[students.distill.features]] pairs layers by number", 'set layers = "all" or "last"'
    elif any(re.search(r"\d", part) and not re.search("[a-z]", part) for name in named for part in name.split(".")):
        told, hint = "fit.train_layers names layers by number", "name parts that every layer has"
    else:
        return
    raise UserError(
        f"'{student.name}': {told}, but '{student.model}' loses layers in several steps, so that a number means one "
        "layer in the trainings between them and another in the end",
        f"{hint}, or leave out options.steps",
    )


def _check_vocabulary(student: Student, first: Teacher | Student, name: str) -> None:
    """Raise UserError where a student would be compared inside with one whose tokens are others by then."""
    if isinstance(first, Student) and first.prune.is_active:
        raise UserError(
            f"'{student.name}': [[students.distill.features]] look into '{name}', whose vocabulary is trimmed before "
            "it teaches, so that the two do not read the same tokens",
            f"leave out prune of '{name}', name another teacher first, or leave out the features",
        )


def _grows(model: Teacher | Student) -> bool:
    return bool(model.fit.grow_images) or model.fit.stack is not None


def _is_choosy(config: FitConfig) -> bool:
    """Whether some layers are to be trained otherwise than others."""
    others = config.train_layers != "all" or config.layer_decay != 1.0 or config.unfreeze is not None
    return bool(config.epochs) and others
