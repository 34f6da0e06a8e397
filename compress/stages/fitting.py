"""One training of one model: what it trains on, the curves of it, and what a student loses afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from compress.recipe import Student, Teacher
from compress.rundir import remove
from compress.stages.context import REFIT, REFIT_SPLITS, RunContext
from serve.images import ImagePreparer
from train.classifier import Classifier, load_classifier, save_classifier
from train.data import UNLABELLED_ITEMS, Data
from train.distill.config import LessonItems
from train.draft import Wanted
from train.fit import fit
from train.fit_config import FitConfig
from train.fit_result import FitResult, Refit
from train.following import Following
from train.processes import world
from train.prune import PruneConfig, cut_otherwise, prune
from train.teaching import Teaching


@dataclass(frozen=True)
class Training:
    """One of the trainings that a model needs: a first one, and where the recipe asks for a refit, a second."""

    model: str  # its name in the recipe
    place: str  # its stage, and its folder
    teacher: str  # the folder of the main teacher, whose view its students see
    seed: int
    learns: LessonItems = "labelled"  # from which items; of unlabelled ones, where the data have some
    first: FitResult | None = None  # what the training before a refit gave
    between: bool = False  # two steps of pruning: it is never paused

    @property
    def items(self) -> str:
        """What it trains on, as `Data.part` names it."""
        return {"labelled": self._labelled, "all": self.known, "unlabelled": UNLABELLED_ITEMS}[self.learns]

    @property
    def known(self) -> str:
        """All items that it may know, whether or not it learns from their labels."""
        return self._labelled if self.learns == "labelled" else f"{self._labelled}+{UNLABELLED_ITEMS}"

    @property
    def _labelled(self) -> str:
        return "train" if self.first is None else REFIT

    @property
    def curves(self) -> str:
        """The name of its curves; no model of a recipe can have a plus in its name."""
        return self.model if self.first is None else f"{self.model}+refit"

    def after_step(self, step: int, config: FitConfig) -> Training:
        """The training after a step of pruning, with curves of its own; of a refit on all its items, to the end."""
        first = None if self.first is None else FitResult(epochs=[], best_epoch=config.epochs, params=0, macs=0)
        return replace(self, model=f"{self.model}+step-{step}", first=first, between=True)

    @property
    def splits(self) -> tuple[str, ...]:
        """All that it looks at."""
        return ("train", "validation") if self.first is None else REFIT_SPLITS


def learns_from(model: Teacher | Student, data: Data) -> LessonItems:
    """From which items; unlabelled ones are for distilled students alone."""
    if not isinstance(model, Student) or model.distill is None or data.unlabelled is None:
        return "labelled"
    return model.distill.items


def wanted_by(run: RunContext, seed: int, teacher: Classifier | None = None) -> Wanted:
    """What a new model must fit. What is learned before training comes from train, also for a refit: the same start."""
    data = run.data
    return Wanted(
        task=data.task,
        labels=data.classes,
        seed=seed,
        train=data.splits["train"],
        images=lambda spec: run.prepared.get("train", data.splits["train"], ImagePreparer(spec)),
        teacher=teacher,
    )


def train(
    run: RunContext,
    training: Training,
    classifier: Classifier,
    config: FitConfig,
    folder: Path,
    teaching: Teaching | None = None,
    guide: Classifier | None = None,
) -> FitResult:
    """`fit` on what the training is about; a refit ends with the first training's best epoch, and says so."""
    items, origins = run.inputs(training.items, classifier), run.items(training.items).origins
    first = training.first
    folder_of_curves = run.path / "tensorboard" / training.curves
    if not run.tensorboard and world().leads:
        remove(folder_of_curves)  # they show another training
    fit_with = partial(
        fit, seed=training.seed, folder=folder, teaching=teaching, guide=guide, origins=origins, shard=run.shard
    )
    following = Following(say=run.console.detail, curves=folder_of_curves if run.tensorboard else None)
    if first is not None:
        result = fit_with(classifier, config, items, None, until=first.best_epoch, following=following)
        now, before = (0 if training.learns == "unlabelled" else len(run.items(part)) for part in (REFIT, "train"))
        refit = Refit(epochs=first.best_epoch, items=now, items_before=before)
        return result.model_copy(update={"epochs": first.epochs, "refit": refit})
    validation = run.inputs("validation", classifier)
    with run.console.epochs() as on_epoch:
        following = replace(following, on_epoch=on_epoch, pause=None if training.between else run.pause)
        return fit_with(classifier, config, items, validation, following=following)


def prune_student(
    run: RunContext, training: Training, result: FitResult, config: PruneConfig, folder: Path
) -> FitResult:
    """Write the student that was trained into `folder` again, without what it can do without."""
    trained = load_classifier(folder)
    pruned = prune(trained, config, _texts(run, training.known))
    save_classifier(pruned, folder)
    note = f"embeddings pruned: {trained.params:,} parameters are {pruned.params:,} now"
    if training.first is None:
        unseen = _texts(run, "validation")
        otherwise = cut_otherwise(trained, pruned, unseen)
        note += f"; {otherwise:,} of {len(unseen):,} validation texts are cut into other tokens"
    run.console.detail(note)
    return result.model_copy(update={"params": pruned.params, "notes": (*result.notes, note)})


def _texts(run: RunContext, items: str) -> list[str]:
    return [item.decode() for item in run.items(items).content]
