"""The objective of `limbeck tune`: a recipe whose fields the search changes. The search itself is `train.tuning`.

Test and calibration are never looked at: a trial trains on train, and is judged on validation or on held-out folds.
A student with [students.prune] is judged as it is pruned. Later steps, such as fit.final_refit, are left to the run.
"""

from __future__ import annotations

import copy
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from compress.beforehand import check_trainings
from compress.fingerprint import fingerprint
from compress.measure.predictions import score_items
from compress.recipe import TEACHER, Recipe, Student, Teacher
from compress.recipe_file import apply_change, as_change, parse_recipe
from compress.rundir import ANSWERS, move_into_place
from compress.teachers import all_teachers, seed_of, teachers_of
from serve.errors import UserError, said
from serve.images import ImagePreparer
from train.classifier import Classifier, ModelConfig, load_classifier, new_classifier
from train.data import Data
from train.distill import DistillConfig
from train.draft import Wanted
from train.epochs import EpochRecord
from train.fit import fit
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.following import Following
from train.inputs import PreparedSplits
from train.metrics import macro_f1
from train.prune import prune
from train.recovery import forget_steps, recovered
from train.sources import Items
from train.sources.joined import join
from train.splits import draw_splits
from train.teaching import Teaching
from train.torch_runner import TorchRunner
from train.tuning.config import TuneConfig
from train.tuning.folds import Fold, fold_rows, kept_apart
from train.tuning.study import Pruned, Report
from train.unlabelled import without_known

TEACHERS, PARTIAL = "teachers", ".partial"


class RecipeObjective:
    """Trains the tuned model as the recipe with a trial's values says, and judges it: 0..1, higher is better."""

    def __init__(
        self,
        content: dict[str, Any],
        origin: str,
        config: TuneConfig,
        data: Data,
        folder: Path,
        teacher: Path | None = None,
        fits: int = 1,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._content, self._origin, self._config, self._data = content, origin, config, data
        self._folder, self._given_teacher, self._say = folder, teacher, say
        self._prepared = PreparedSplits()
        self._pool = join([data.splits["train"], data.splits["validation"]])
        self._folds: list[Fold] = []
        if config.folds:
            folds = fold_rows(self._pool.labels, config.folds, int(content.get("seed", 0)), fits)
            repair = parse_recipe(content, origin).data.repair
            self._folds = kept_apart(folds, self._pool, data.classes, repair.duplicates)

    def __call__(self, values: dict[str, Any], report: Report) -> float:
        recipe = self.recipe(values)
        self._check(recipe)
        try:
            return self._across_folds(recipe, report) if self._folds else self._on_validation(recipe, report)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"memory ran out: {said(error)}",
                "search smaller models, or set fit.batch_size lower with more fit.accumulation",
            ) from None

    def recipe(self, values: dict[str, Any]) -> Recipe:
        """The recipe with these values in it. Raises UserError where they do not go together."""
        content = copy.deepcopy(self._content)
        for field, value in values.items():
            apply_change(content, as_change(field, value))
        return parse_recipe(content, self._origin)

    def _check(self, recipe: Recipe) -> None:
        """Raise UserError, as a run would, for what cannot be trained: before a teacher is trained for it."""
        train = self._data.splits["train"]

        def new(config: ModelConfig, teacher: Classifier | None) -> Classifier:
            return new_classifier(config, self._wanted(recipe.seed, train, self._prepared, teacher))

        check_trainings(_needed(recipe, self._config.model), self._data, new)

    def teacher_of(self, recipe: Recipe) -> Path:
        """The folder of the recipe's trained teacher, trained now unless it was before. Raises UserError."""
        return self._given_teacher if self._given_teacher is not None else self._trained(recipe, TEACHER)

    def _teachers_of(self, recipe: Recipe, model: Teacher | Student) -> list[Classifier]:
        """Those whose answers it learns from, each trained once: the main teacher, further ones, other students."""
        names = teachers_of(model) if isinstance(model, Student) else ()
        folders = [self.teacher_of(recipe) if name == TEACHER else self._trained(recipe, name) for name in names]
        return [load_classifier(folder) for folder in folders]

    def _key(self, recipe: Recipe, name: str) -> str:
        """Names a model that teaches, and all that its training depends on."""
        if name == TEACHER:
            content = {"teacher": recipe.teacher, "seed": recipe.seed, "data": self._data.fingerprint}
            return fingerprint(content)[:12]
        model, pool = model_of(recipe, name), self._data.unlabelled
        names = teachers_of(model) if isinstance(model, Student) else ()
        content = {"model": model, "seed": seed_of(recipe, model), "data": self._data.fingerprint}
        content |= {"unlabelled": pool and pool.fingerprint, "given": str(self._given_teacher)}
        return fingerprint({**content, "after": [self._key(recipe, other) for other in (TEACHER, *names)]})[:12]

    def _trained(self, recipe: Recipe, name: str) -> Path:
        """The folder of a model that teaches, trained on train now unless it was before."""
        key, model = self._key(recipe, name), model_of(recipe, name)
        main = None if name == TEACHER else load_classifier(self.teacher_of(recipe))
        folder = self._folder / TEACHERS / key
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):  # another process may be training it
            if not folder.exists():
                self._say(f"training {'the teacher' if name == TEACHER else name}, once: {model.model}")
                partial = self._folder / PARTIAL / f"teacher-{key}"  # the same again after a kill: it goes on there
                splits = self._data.splits
                prepared = PreparedSplits()
                self._train(recipe, model, main, splits["train"], splits["validation"], partial, prepared)
                move_into_place(partial, folder)
        return folder

    def _on_validation(self, recipe: Recipe, report: Report) -> float:
        held_out = self._data.splits["validation"]

        def on_epoch(record: EpochRecord, epochs: int) -> None:
            _report(report, record.epoch, record.accuracy, last=record.epoch == epochs)

        predicted = self._predict(recipe, self._data.splits["train"], held_out, held_out, self._prepared, on_epoch)
        return self._judge(predicted, held_out.labels)

    def _across_folds(self, recipe: Recipe, report: Report) -> float:
        """The metric over all held-out items at once; each is predicted by a model that never saw it.

        The epoch that is kept is chosen on a part of the fold's other items, as large a share as validation is.
        """
        share = len(self._data.splits["validation"]) / len(self._pool)
        predicted, labels = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        for at, (rest, held_out) in enumerate(self._folds, start=1):
            count = max(round(share * len(rest)), len(self._data.classes))
            parts = draw_splits(self._pool.take(rest), {"validation": count}, len(self._data.classes), recipe.seed)
            items = self._pool.take(held_out)
            said = self._predict(recipe, parts["train"], parts["validation"], items, PreparedSplits())
            predicted = np.append(predicted, said)
            labels = np.append(labels, items.labels)
            _report(report, at, self._judge(predicted, labels), last=at == len(self._folds))
        return self._judge(predicted, labels)

    def _predict(
        self,
        recipe: Recipe,
        train: Items,
        validation: Items,
        held_out: Items,
        prepared: PreparedSplits,
        on_epoch: Callable[[EpochRecord, int], None] | None = None,
    ) -> np.ndarray:
        """What the tuned model, trained on `train`, says of `held_out`: class numbers int64 [N]."""
        model = model_of(recipe, self._config.model)
        teacher = None if isinstance(model, Teacher) else load_classifier(self.teacher_of(recipe))
        folder = self._folder / PARTIAL / f"trial-{uuid.uuid4().hex}"  # this process's own
        try:
            unseen = [validation, held_out] if self._folds else []
            trained = self._train(recipe, model, teacher, train, validation, folder, prepared, on_epoch, unseen)
            return score_items(TorchRunner(trained), held_out).argmax(axis=1)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _train(
        self,
        recipe: Recipe,
        model: Teacher | Student,
        teacher: Classifier | None,
        train: Items,
        validation: Items,
        folder: Path,
        prepared: PreparedSplits,
        on_epoch: Callable[[EpochRecord, int], None] | None = None,
        unseen: Sequence[Items] = (),
    ) -> Classifier:
        """A new model, trained and pruned as `compress.stages.training` does it; not on what is `unseen`."""
        wanted = self._wanted(seed_of(recipe, model), train, prepared, teacher)
        config = ModelConfig(model=model.model, options=model.options)
        classifier = new_classifier(config, wanted)
        seen = prepared.get("train", train, classifier.preparer())
        checked = prepared.get("validation", validation, classifier.preparer())
        teaching = None
        if teacher is not None and isinstance(model, Student) and model.distill is not None:
            lesson = self._lesson(model.distill, train, unseen)
            what = f"lesson of {model.distill.items} items"  # which a search may vary
            seen = prepared.get(what, lesson, classifier.preparer())
            asked = self._teachers_of(recipe, model)
            (first, taught), *more = [(one, prepared.get(what, lesson, one.preparer())) for one in asked]
            teaching = Teaching(first, model.distill, taught, tuple(more), self._folder / PARTIAL / ANSWERS)
        seed, guide = seed_of(recipe, model), teacher if isinstance(model, Student) else None

        def recover(network: Classifier, between: FitConfig, place: Path, step: int) -> FitResult:
            return fit(network, between, seen, checked, seed, place, teaching, guide=guide)

        classifier, _ = recovered(classifier, config, wanted, model.fit, folder, recover)
        fit(classifier, model.fit, seen, checked, seed, folder, teaching, Following(on_epoch), guide)
        forget_steps(folder)
        trained = load_classifier(folder)
        if isinstance(model, Student) and model.prune.is_active:
            texts = train if model.distill is None else join([train, self._lesson(model.distill, train, unseen)])
            return prune(trained, model.prune, [item.decode() for item in texts.content])
        return trained

    def _wanted(self, seed: int, train: Items, prepared: PreparedSplits, teacher: Classifier | None) -> Wanted:
        return Wanted(
            task=self._data.task,
            labels=self._data.classes,
            seed=seed,
            train=train,
            images=lambda spec: prepared.get("train", train, ImagePreparer(spec)),
            teacher=teacher,
        )

    def _lesson(self, distill: DistillConfig, train: Items, unseen: Sequence[Items]) -> Items:
        """What a student learns from; of a fold, without unlabelled items that it is judged by."""
        if self._data.unlabelled is None or distill.items == "labelled":
            return train
        pool = self._data.unlabelled.items
        for items in unseen:
            pool = without_known(pool, items)
        return pool if distill.items == "unlabelled" else join([train, pool])

    def _judge(self, predicted: np.ndarray, labels: np.ndarray) -> float:
        if self._config.metric == "macro_f1":
            return macro_f1(predicted, labels, len(self._data.classes))
        return float((predicted == labels).mean())


def _report(report: Report, step: int, value: float, last: bool) -> None:
    """Report a step; a trial that has only to be judged is not pruned any more."""
    try:
        report(step, value)
    except Pruned:
        if not last:
            raise


def _needed(recipe: Recipe, name: str) -> Recipe:
    """The recipe with the model called `name`, and those alone whom it learns from."""
    needed, waiting = {TEACHER}, [name]
    while waiting:
        model = model_of(recipe, one := waiting.pop())
        needed.add(one)
        waiting += [
            other for other in (teachers_of(model) if isinstance(model, Student) else ()) if other not in needed
        ]
    students = tuple(student for student in recipe.students if student.name in needed)
    teachers = tuple(teacher for teacher in recipe.teachers if teacher.name in needed)
    return recipe.model_copy(update={"students": students, "teachers": teachers})


def model_of(recipe: Recipe, name: str) -> Teacher | Student:
    """The model called `name`, which the recipe has."""
    if (teachers := all_teachers(recipe)).get(name) is not None:
        return teachers[name]
    return next(student for student in recipe.students if student.name == name)
