"""The stages that train: the teacher, then each student and control."""

from __future__ import annotations

from pathlib import Path

from compress.beforehand import check_models
from compress.recipe import TEACHER, Student, Teacher
from compress.rundir import remove
from compress.stages.context import RunContext
from serve.images import ImagePreparer
from train.arguments import training_device
from train.augment.augmenter import asks_the_teacher
from train.augment.augmenter import origin as origin_of_views
from train.classifier import Classifier, ModelConfig, load_classifier, new_classifier, read_spec, save_classifier
from train.compiled import check_compiler
from train.draft import Wanted
from train.fit import FitResult, Teaching, fit
from train.fit_config import FitConfig
from train.losses import class_weights
from train.models import needs_teacher, origin
from train.prune import PruneConfig, cut_otherwise, prune
from train.recompute import recomputed_layers

_SPLITS = ("train", "validation")


def train_models(run: RunContext) -> dict[str, FitResult]:
    """Train the teacher, then each student and control: results by model name."""
    models: list[Teacher | Student] = [run.recipe.teacher, *run.recipe.students]
    for model in models:  # not after hours of training the teacher
        class_weights(model.fit.class_weights, run.data.classes, run.data.splits["train"].labels)
        _check_switches(run, model)
    check_models(run.recipe, lambda config, teacher: new_classifier(config, _wanted(run, teacher)))
    results = {TEACHER: _teacher(run)}
    for student in run.recipe.students:
        results[student.name] = _student(run, student)
    return results


def _check_switches(run: RunContext, model: Teacher | Student) -> None:
    """Raise UserError where the machine, or a network that can be built before its teacher, cannot do as asked."""
    if model.fit.epochs and model.fit.compile:
        check_compiler(training_device())
    if model.fit.epochs and model.fit.gradient_checkpointing and not needs_teacher(model.model, model.options):
        recomputed_layers(new_classifier(ModelConfig(model=model.model, options=model.options), _wanted(run)))


def _teacher(run: RunContext) -> FitResult:
    teacher = run.recipe.teacher
    config = ModelConfig(model=teacher.model, options=teacher.options)
    inputs = {"model": config, "fit": teacher.fit, **origin_of_views(teacher.fit.augment), **_origin(config)}

    def work(folder: Path) -> FitResult:
        return _train(run, TEACHER, new_classifier(config, _wanted(run)), teacher.fit, folder)

    return run.stage(TEACHER, inputs, FitResult, work, output=TEACHER, splits=_SPLITS)


def _student(run: RunContext, student: Student) -> FitResult:
    config = ModelConfig(model=student.model, options=student.options)
    name = f"students/{student.name}"
    taught = student.distill is not None or needs_teacher(student.model, student.options)
    inputs = {
        "model": config,
        "fit": student.fit,
        "distill": student.distill,
        "teacher": run.rundir.digest(TEACHER) if taught else None,
        # a control, which has nothing else of the teacher, still sees the same view of the images
        "preprocessing": read_spec(run.path / TEACHER).preprocessing if run.data.task == "image" else None,
        **_of_views(run, student.fit),
        **({"prune": student.prune} if student.prune.is_active else {}),
        **_origin(config),
    }

    def work(folder: Path) -> FitResult:
        teacher = run.classifier(TEACHER)
        classifier = new_classifier(config, _wanted(run, teacher))
        teaching = None
        if student.distill is not None:
            teaching = Teaching(teacher, student.distill, run.inputs("train", teacher))
        result = _train(run, student.name, classifier, student.fit, folder, teaching, guide=teacher)
        return _prune(run, result, student.prune, folder) if student.prune.is_active else result

    return run.stage(name, inputs, FitResult, work, output=name, splits=_SPLITS)


def _train(
    run: RunContext,
    model: str,
    classifier: Classifier,
    config: FitConfig,
    folder: Path,
    teaching: Teaching | None = None,
    guide: Classifier | None = None,
) -> FitResult:
    train, validation = run.inputs("train", classifier), run.inputs("validation", classifier)
    say, curves = run.console.detail, run.path / "tensorboard" / model
    if not run.tensorboard:
        remove(curves)  # they show another training
    with run.console.epochs() as on_epoch:
        seed, origins = run.recipe.seed, run.data.splits["train"].origins
        return fit(
            classifier,
            config,
            train,
            validation,
            seed,
            folder,
            teaching,
            on_epoch,
            say,
            guide,
            origins,
            curves if run.tensorboard else None,
        )


def _prune(run: RunContext, result: FitResult, config: PruneConfig, folder: Path) -> FitResult:
    """Write the student that was trained into `folder` again, without what it can do without."""
    trained = load_classifier(folder)
    pruned = prune(trained, config, _texts(run, "train"))
    save_classifier(pruned, folder)
    unseen = _texts(run, "validation")
    note = (
        f"embeddings pruned: {trained.params:,} parameters are {pruned.params:,} now; "
        f"{cut_otherwise(trained, pruned, unseen):,} of {len(unseen):,} validation texts are cut into other tokens"
    )
    run.console.detail(note)
    return result.model_copy(update={"params": pruned.params, "notes": (*result.notes, note)})


def _texts(run: RunContext, split: str) -> list[str]:
    return [item.decode() for item in run.data.splits[split].content]


def _of_views(run: RunContext, config: FitConfig) -> dict[str, str]:
    """What the views that a student sees depend on: files, and the teacher, also where it teaches nothing else."""
    guide = {"guide": run.rundir.digest(TEACHER)} if asks_the_teacher(config.augment) else {}
    return {**guide, **origin_of_views(config.augment)}


def _wanted(run: RunContext, teacher: Classifier | None = None) -> Wanted:
    data = run.data
    return Wanted(
        task=data.task,
        labels=data.classes,
        seed=run.recipe.seed,
        train=data.splits["train"],
        images=lambda spec: run.prepared.get("train", data.splits["train"], ImagePreparer(spec)),
        teacher=teacher,
    )


def _origin(config: ModelConfig) -> dict[str, str]:
    """What a stage depends on where its model starts from files or is defined by a library."""
    found = origin(config.model, config.options)
    return {} if found is None else {"origin": found}
