"""The stages that train: the teacher, then each student and control, and those again that are refitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from compress.beforehand import check_trainings
from compress.recipe import TEACHER, Student, Teacher
from compress.stages.context import RunContext, held_out
from compress.stages.fitting import Training, learns_from, prune_student, train, wanted_by
from compress.teachers import all_teachers, in_order, seed_of, teachers_of
from serve.manifest import Preprocessing
from train.augment.augmenter import asks_the_teacher
from train.augment.augmenter import origin as origin_of_views
from train.classifier import Classifier, ModelConfig, new_classifier, read_spec
from train.data import Data
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.models import needs_teacher, origin
from train.processes import world
from train.recovery import forget_steps, recovered
from train.teaching import Teaching

# Distillation tells some of what a teacher has learned by heart (Jagielski et al. 2023, arXiv 2303.03446).
_HEARD_OF_VALIDATION = (
    "its teacher was refitted, and so has met the validation items, of which some may have reached this student by way "
    "of the teacher's answers: its accuracy on validation, and its drop from the teacher before the refit, may be a "
    "little too good; on test they are not"
)


def train_models(run: RunContext) -> dict[str, FitResult]:
    """Train the teacher, then each student and control: results by model name."""
    results = train_teachers(run)
    teachers = list(results)
    for student in in_order(run.recipe.students):
        results[student.name] = train_student(run, student)
    return {name: results[name] for name in (*teachers, *(student.name for student in run.recipe.students))}


def train_teachers(run: RunContext, besides: Sequence[Student] = ()) -> dict[str, FitResult]:
    """Check all models of the recipe, then train the teacher and further ones: results by name.

    Students that will be trained `besides` are checked too.
    """
    teachers = all_teachers(run.recipe)
    seed = run.recipe.seed
    planned = run.recipe.model_copy(update={"students": (*run.recipe.students, *besides)})
    check_trainings(planned, run.data, lambda config, teacher: new_classifier(config, wanted_by(run, seed, teacher)))
    return {name: _with_refit(run, name, one, partial(_teacher, run, one)) for name, one in teachers.items()}


def train_student(run: RunContext, student: Student) -> FitResult:
    """Train a student or control, after all that teach it. Raises Paused where the run wants a pause."""
    return _with_refit(run, student.name, student, partial(_student, run, student))


def _with_refit(
    run: RunContext, name: str, model: Teacher | Student, fit_it: Callable[[Training], FitResult]
) -> FitResult:
    """Train a model at its place; where it is refitted, there the second time, with all that was held out before.

    What is to judge a model before its refit must not have met validation by way of its teacher either, so in the first
    training that is the teacher from before its own refit.
    """
    whole = Training(name, run.folder_of(name), TEACHER, seed_of(run.recipe, model), learns_from(model, run.data))
    if name not in run.refitted:
        return fit_it(whole)
    first = fit_it(replace(whole, place=held_out(whole.place), teacher=_place_of(run, TEACHER, before=True)))
    return fit_it(replace(whole, first=first))


def _place_of(run: RunContext, name: str, before: bool) -> str:
    """The folder of a model that teaches; where it is refitted and this is asked, as it was `before`."""
    place = run.folder_of(name)
    return held_out(place) if before and name in run.refitted else place


def _teacher(run: RunContext, teacher: Teacher, training: Training) -> FitResult:
    """The main teacher, or a further one, which sees images as the main one does."""
    config = ModelConfig(model=teacher.model, options=teacher.options)
    is_main = training.model == TEACHER
    inputs = {
        "model": config,
        "fit": teacher.fit,
        "seed": training.seed,
        **({} if is_main else {"preprocessing": _preprocessing(run, training)}),
        **origin_of_views(teacher.fit.augment),
        **_origin(config),
        **_of_refit(run, training),
    }

    def work(folder: Path) -> FitResult:
        main = None if is_main else run.classifier(training.teacher)
        return train(run, training, new_classifier(config, wanted_by(run, training.seed, main)), teacher.fit, folder)

    return run.stage(training.place, inputs, FitResult, work, output=training.place, splits=training.splits)


def _student(run: RunContext, student: Student, training: Training) -> FitResult:
    config = ModelConfig(model=student.model, options=student.options)
    before = training.place != run.folder_of(student.name)
    places = {name: _place_of(run, name, before) for name in teachers_of(student)}
    others = {name: run.rundir.digest(place) for name, place in places.items() if name != TEACHER}
    taught = TEACHER in places or needs_teacher(student.model, student.options)
    pool = None if training.learns == "labelled" else run.data.unlabelled
    inputs = {
        "model": config,
        "fit": student.fit,
        "distill": student.distill,
        "seed": training.seed,
        "teacher": run.rundir.digest(training.teacher) if taught else None,
        **({"teachers": others} if others else {}),
        **({"unlabelled": pool.fingerprint} if pool else {}),
        "preprocessing": _preprocessing(run, training),
        **_of_views(run, student.fit, training.teacher),
        **({"prune": student.prune} if student.prune.is_active else {}),
        **_origin(config),
        **_of_refit(run, training),
    }

    def work(folder: Path) -> FitResult:
        teacher = run.classifier(training.teacher)
        wanted = wanted_by(run, training.seed, teacher)
        classifier = new_classifier(config, wanted)
        teaching = None
        if student.distill is not None:
            asked = [teacher if place == training.teacher else run.classifier(place) for place in places.values()]
            (first, seen), *more = [(one, run.inputs(training.items, one)) for one in asked]
            teaching = Teaching(first, student.distill, seen, tuple(more), run.rundir.answers)

        def recover(network: Classifier, between: FitConfig, place: Path, step: int) -> FitResult:
            return train(run, training.after_step(step, between), network, between, place, teaching, guide=teacher)

        say = run.console.detail
        classifier, steps = recovered(classifier, config, wanted, student.fit, folder, recover, say)
        result = train(run, training, classifier, student.fit, folder, teaching, guide=teacher)
        forget_steps(folder)
        notes = [*result.notes, *steps, *_items_note(training, run.data)]
        heard = run.refitted & {*places, *([TEACHER] if taught else [])}
        if heard and student.name not in run.refitted:
            notes.append(_HEARD_OF_VALIDATION)
        result = result.model_copy(update={"notes": tuple(notes)})
        pruned = student.prune.is_active and world().leads  # it writes
        return prune_student(run, training, result, student.prune, folder) if pruned else result

    return run.stage(training.place, inputs, FitResult, work, output=training.place, splits=training.splits)


def _preprocessing(run: RunContext, training: Training) -> Preprocessing | None:
    """How all models of a run see images; a control, which has nothing else of the teacher, sees them so too."""
    return read_spec(run.path / training.teacher).preprocessing if run.data.task == "image" else None


def _items_note(training: Training, data: Data) -> list[str]:
    """From how many items a student learned, where that is not what its control learned from in as many epochs."""
    if training.learns == "labelled" or data.unlabelled is None:
        return []
    labelled = 0 if training.learns == "unlabelled" else len(data.part(training.known)) - len(data.unlabelled.items)
    return [
        (
            f"learned from {labelled:,} labelled and {len(data.unlabelled.items):,} unlabelled items in each epoch; a "
            "control has as many epochs of the labelled ones alone"
        )
    ]


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
