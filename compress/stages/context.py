"""What every stage of a run works with: recipe, data, run directory, console, and the way back to what is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compress.console import Console
from compress.environment import DECIDING, versions
from compress.measure.predictions import read_scores
from compress.recipe import TEACHER, Recipe
from compress.rundir import Result, RunDir
from compress.teachers import all_teachers
from compress.variants import HELD_OUT, Variant, baseline, further_teachers, packaged_variants
from serve.predictor import Predictor
from serve.runner import Runner
from train.classifier import Classifier, load_classifier
from train.data import Data
from train.epochs import Pause
from train.inputs import Inputs, PreparedSplits
from train.sources import Items
from train.torch_runner import TorchRunner

# What a refit (`fit.final_refit`) trains on. Calibration items too: they set the ranges of static int8 without a look
# at their labels, and no figure is ever taken of them, so that a model has seen them flatters nothing. In the first
# training, with which the choice is made, calibration and validation are held out as ever.
REFIT_SPLITS = ("train", "validation", "calibration")
REFIT = "+".join(REFIT_SPLITS)


class RunContext:
    """One run of one recipe on its data, in its directory; the functions of the other files here are its stages."""

    def __init__(
        self,
        recipe: Recipe,
        data: Data,
        rundir: RunDir,
        console: Console,
        tensorboard: bool = False,
        shard: bool = False,
    ) -> None:
        self.recipe, self.data, self.rundir, self.console = recipe, data, rundir, console
        self.packaged = packaged_variants(recipe)
        self.variants = [baseline(), *further_teachers(recipe), *self.packaged]
        self.prepared = PreparedSplits()
        self.tensorboard = tensorboard
        self.threads = 1 if recipe.serving is None else recipe.serving.threads  # at which latency is judged
        self.shard = shard  # each model is split over all processes while it is trained
        fits = {name: teacher.fit for name, teacher in all_teachers(recipe).items()}
        fits |= {student.name: student.fit for student in recipe.students}
        self.refitted = frozenset(name for name, fit in fits.items() if fit.final_refit)
        self.pause: Pause | None = None  # of a search: when to leave a training for now
        self._done: list[str] = []

    @property
    def path(self) -> Path:
        """The run directory's folder."""
        return self.rundir.path

    def folder_of(self, model: str) -> str:
        """The stage and the folder of a model of the recipe, by its name."""
        if model == TEACHER:
            return TEACHER
        kind = "teachers" if any(teacher.name == model for teacher in self.recipe.teachers) else "students"
        return f"{kind}/{model}"

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        result_type: type[Result],
        work: Callable[[Path], Result],
        output: str | None = None,
        splits: tuple[str, ...] = (),
    ) -> Result:
        """`RunDir.stage` with what every stage depends on: seed, versions, and the items of the splits it reads."""
        self._done.append(name)
        common = {
            "seed": self.recipe.seed,
            "versions": versions(DECIDING),
            "classes": self.data.classes,
            "splits": {split: self.data.fingerprints[split] for split in splits},
        }
        return self.rundir.stage(name, {**common, **inputs}, result_type, work, output)

    def as_served(self) -> dict[str, Any]:
        """What decides a measurement besides the package, where the recipe says how packages are run."""
        return {} if self.recipe.serving is None else {"serving": self.recipe.serving}

    def forget_removed(self) -> None:
        """Delete what earlier versions of the recipe left in the folder."""
        self.rundir.forget_all_but(self._done)

    def inputs(self, split: str, classifier: Classifier) -> Inputs:
        """A part of the data, as `Data.part` names it, as `classifier` takes it."""
        return self.prepared.get(split, self.items(split), classifier.preparer())

    def items(self, split: str) -> Items:
        """A split, those of REFIT as one, or these with unlabelled items."""
        return self.data.part(split)

    def classifier(self, folder: str) -> Classifier:
        """The trained model in `folder` of the run directory."""
        return load_classifier(self.path / folder)

    def open(self, variant: Variant, threads: int | None = None, stage: str | None = None) -> Runner:
        """A runner of `variant`, as users run it, or of what `stage` made of it; `threads` of ONNX Runtime."""
        folder = self.path / (stage or weights_stage(variant))
        return TorchRunner(load_classifier(folder)) if variant.runtime == "torch" else Predictor.load(folder, threads)

    def scored_stage(self, variant: Variant, split: str) -> str:
        """The stage, and the folder, whose weights are scored on a split: on validation such as never saw it."""
        shipped = weights_stage(variant)
        return held_out(shipped) if split == "validation" and variant.model in self.refitted else shipped

    def scores(self, variant: Variant, split: str) -> np.ndarray:
        """What `variant` said of a split: float32 [N, K]."""
        return read_scores(self.path / predictions_file(variant, split))

    def digests(self) -> dict[str, str]:
        """The hash of what each variant answers with, by variant id."""
        return {variant.id: self.rundir.digest(weights_stage(variant)) for variant in self.variants}


def weights_stage(variant: Variant) -> str:
    """The stage, and the folder, that decides what a variant answers."""
    return variant.model_folder if variant.runtime == "torch" else variant.package


def held_out(place: str) -> str:
    """Where the counterpart from before a refit is of what is at `place`."""
    return f"{HELD_OUT}/{place}"


def predictions_file(variant: Variant, split: str) -> str:
    """Where its scores of a split lie in the run directory."""
    folder = "predictions" if split == "test" else f"predictions/{split}"
    return f"{folder}/{variant.id}.parquet"
