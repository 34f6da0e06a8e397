"""The objective of `limbeck tune`: a recipe whose fields the search changes. The search itself is `train.tuning`.

Test and calibration are never looked at: a trial trains on train, and is judged on validation or on held-out folds.
A student with [students.prune] is judged as it is pruned. Later steps, such as fit.final_refit, are left to the run.
"""

from __future__ import annotations

import copy
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from compress.fingerprint import fingerprint
from compress.predictions import score_items
from compress.recipe import TEACHER, Recipe, Student, Teacher, apply_change, parse_recipe
from compress.rundir import move_into_place
from compress.tunecheck import as_change
from serve.errors import UserError
from serve.images import ImagePreparer
from train.classifier import Classifier, ModelConfig, load_classifier, new_classifier
from train.data import Data
from train.draft import Wanted
from train.epochs import EpochRecord
from train.fit import Teaching, fit
from train.inputs import PreparedSplits
from train.metrics import macro_f1
from train.prune import prune
from train.sources import Items
from train.sources.joined import join
from train.splits import draw_splits
from train.torch_runner import TorchRunner
from train.tuning.config import TuneConfig
from train.tuning.folds import fold_rows
from train.tuning.study import Pruned, Report

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
        self._folds = (
            fold_rows(self._pool.labels, config.folds, int(content.get("seed", 0)), fits) if config.folds else []
        )

    def __call__(self, values: dict[str, Any], report: Report) -> float:
        recipe = self.recipe(values)
        try:
            return self._across_folds(recipe, report) if self._folds else self._on_validation(recipe, report)
        except torch.OutOfMemoryError as error:
            raise UserError(f"out of memory: {str(error).splitlines()[0]}") from None

    def recipe(self, values: dict[str, Any]) -> Recipe:
        """The recipe with these values in it. Raises UserError where they do not go together."""
        content = copy.deepcopy(self._content)
        for field, value in values.items():
            apply_change(content, as_change(field, value))
        return parse_recipe(content, self._origin)

    def teacher_of(self, recipe: Recipe) -> Path:
        """The folder of the recipe's trained teacher, trained now unless it was before. Raises UserError."""
        if self._given_teacher is not None:
            return self._given_teacher
        key = fingerprint({"teacher": recipe.teacher, "seed": recipe.seed, "data": self._data.fingerprint})[:12]
        folder = self._folder / TEACHERS / key
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):  # another process may be training it
            if not folder.exists():
                self._say(f"training the teacher, once: {recipe.teacher.model}")
                partial = self._folder / PARTIAL / f"teacher-{key}"  # the same again after a kill: it goes on there
                splits = self._data.splits
                prepared = PreparedSplits()
                self._train(recipe, recipe.teacher, None, splits["train"], splits["validation"], partial, prepared)
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
            trained = self._train(recipe, model, teacher, train, validation, folder, prepared, on_epoch)
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
    ) -> Classifier:
        """A new model, trained and pruned as `compress.stages.training` does, from `folder`."""
        wanted = Wanted(
            task=self._data.task,
            labels=self._data.classes,
            seed=recipe.seed,
            train=train,
            images=lambda spec: prepared.get("train", train, ImagePreparer(spec)),
            teacher=teacher,
        )
        classifier = new_classifier(ModelConfig(model=model.model, options=model.options), wanted)
        seen = prepared.get("train", train, classifier.preparer())
        checked = prepared.get("validation", validation, classifier.preparer())
        teaching = None
        if teacher is not None and isinstance(model, Student) and model.distill is not None:
            taught = prepared.get("train", train, teacher.preparer())
            teaching = Teaching(teacher, model.distill, taught)
        fit(classifier, model.fit, seen, checked, recipe.seed, folder, teaching, on_epoch, guide=teacher)
        trained = load_classifier(folder)
        if isinstance(model, Student) and model.prune.is_active:
            return prune(trained, model.prune, [item.decode() for item in train.content])
        return trained

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


def model_of(recipe: Recipe, name: str) -> Teacher | Student:
    """The model called `name`, which the recipe has."""
    if name == TEACHER:
        return recipe.teacher
    return next(student for student in recipe.students if student.name == name)
