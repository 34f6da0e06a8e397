"""The stages that train: the teacher, then each student and control, and those again that are refitted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from compress.beforehand import check_models
from compress.recipe import TEACHER, Student, Teacher
from compress.stages.context import RunContext, held_out
from compress.stages.fitting import Training, prune_student, train, wanted_by
from train.arguments import training_device
from train.augment.augmenter import asks_the_teacher
from train.augment.augmenter import origin as origin_of_views
from train.classifier import ModelConfig, new_classifier, read_spec
from train.compiled import check_compiler
from train.fit import FitResult, Teaching
from train.fit_config import FitConfig
from train.losses import class_weights
from train.models import needs_teacher, origin
from train.processes import world
from train.recompute import recomputed_layers

# Distillation tells some of what a teacher has learned by heart (Jagielski et al. 2023, arXiv 2303.03446).
_HEARD_OF_VALIDATION = (
    "its teacher was refitted, and so has met the validation items, of which some may have reached this student by way "
    "of the teacher's answers: its accuracy on validation, and its drop from the teacher before the refit, may be a "
    "little too good; on test they are not"
)


def train_models(run: RunContext) -> dict[str, FitResult]:
    """Train the teacher, then each student and control: results by model name."""
    models: list[Teacher | Student] = [run.recipe.teacher, *run.recipe.students]
    for model in models:  # not after hours of training the teacher
        class_weights(model.fit.class_weights, run.data.classes, run.data.splits["train"].labels)
        _check_switches(run, model)
    check_models(run.recipe, lambda config, teacher: new_classifier(config, wanted_by(run, teacher)))
    results = {TEACHER: _with_refit(run, TEACHER, TEACHER, partial(_teacher, run))}
    for student in run.recipe.students:
        place = f"students/{student.name}"
        results[student.name] = _with_refit(run, student.name, place, partial(_student, run, student))
    return results


def _check_switches(run: RunContext, model: Teacher | Student) -> None:
    """Raise UserError where the machine, or a network that can be built before its teacher, cannot do as asked."""
    if model.fit.epochs and model.fit.compile:
        check_compiler(training_device())
    if model.fit.epochs and model.fit.gradient_checkpointing and not needs_teacher(model.model, model.options):
        recomputed_layers(new_classifier(ModelConfig(model=model.model, options=model.options), wanted_by(run)))


def _with_refit(run: RunContext, name: str, place: str, fit_it: Callable[[Training], FitResult]) -> FitResult:
    """Train a model at `place`; where it is refitted, there the second time, with all that was held out the first time.

    What is to judge a model before its refit must not have met validation by way of its teacher either, so in the first
    training that is the teacher from before its own refit.
    """
    if name not in run.refitted:
        return fit_it(Training(name, place, TEACHER))
    first = fit_it(Training(name, held_out(place), held_out(TEACHER) if TEACHER in run.refitted else TEACHER))
    return fit_it(Training(name, place, TEACHER, first))


def _teacher(run: RunContext, training: Training) -> FitResult:
    teacher = run.recipe.teacher
    config = ModelConfig(model=teacher.model, options=teacher.options)
    inputs = {
        "model": config,
        "fit": teacher.fit,
        **origin_of_views(teacher.fit.augment),
        **_origin(config),
        **_of_refit(run, training),
    }

    def work(folder: Path) -> FitResult:
        return train(run, training, new_classifier(config, wanted_by(run)), teacher.fit, folder)

    return run.stage(training.place, inputs, FitResult, work, output=training.place, splits=training.splits)


def _student(run: RunContext, student: Student, training: Training) -> FitResult:
    config = ModelConfig(model=student.model, options=student.options)
    taught = student.distill is not None or needs_teacher(student.model, student.options)
    spec = read_spec(run.path / training.teacher)
    inputs = {
        "model": config,
        "fit": student.fit,
        "distill": student.distill,
        "teacher": run.rundir.digest(training.teacher) if taught else None,
        # a control, which has nothing else of the teacher, still sees the same view of the images
        "preprocessing": spec.preprocessing if run.data.task == "image" else None,
        **_of_views(run, student.fit, training.teacher),
        **({"prune": student.prune} if student.prune.is_active else {}),
        **_origin(config),
        **_of_refit(run, training),
    }

    def work(folder: Path) -> FitResult:
        teacher = run.classifier(training.teacher)
        classifier = new_classifier(config, wanted_by(run, teacher))
        teaching = None
        if student.distill is not None:
            teaching = Teaching(teacher, student.distill, run.inputs(training.items, teacher))
        result = train(run, training, classifier, student.fit, folder, teaching, guide=teacher)
        if taught and TEACHER in run.refitted and student.name not in run.refitted:
            result = result.model_copy(update={"notes": (*result.notes, _HEARD_OF_VALIDATION)})
        pruned = student.prune.is_active and world().leads  # it writes
        return prune_student(run, training, result, student.prune, folder) if pruned else result

    return run.stage(training.place, inputs, FitResult, work, output=training.place, splits=training.splits)


def _of_views(run: RunContext, config: FitConfig, teacher: str) -> dict[str, str]:
    """What the views that a student sees depend on: files, and the teacher, also where it teaches nothing else."""
    guide = {"guide": run.rundir.digest(teacher)} if asks_the_teacher(config.augment) else {}
    return {**guide, **origin_of_views(config.augment)}


def _of_refit(run: RunContext, training: Training) -> dict[str, Any]:
    """What a refit depends on besides: the training before it."""
    if training.first is None:
        return {}
    return {"refit": {"until": training.first.best_epoch, "before": run.rundir.digest(held_out(training.place))}}


def _origin(config: ModelConfig) -> dict[str, str]:
    """What a stage depends on where its model starts from files or is defined by a library."""
    found = origin(config.model, config.options)
    return {} if found is None else {"origin": found}
