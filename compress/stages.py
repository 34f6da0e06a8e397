"""The stages of a run: each ties a function from typed inputs to a typed result to its place in the run directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compress.assemble import Evidence
from compress.choose import Measured, choose
from compress.console import Console
from compress.environment import DECIDING, EXPORTING, hardware, versions
from compress.latency import LatencyResult, count_rounds, measure_latency, reference_point
from compress.memory import MemoryResult, measure_memory
from compress.packaging import PackageResult, is_batch_invariant, make_package
from compress.predictions import PredictionResult, predict, read_scores
from compress.recipe import TEACHER, Recipe, Student, Teacher
from compress.report.schema import Choice
from compress.rundir import Result, RunDir
from compress.variants import BASELINE, Variant, baseline, packaged_variants, parents
from serve.images import ImagePreparer
from serve.predictor import Predictor
from serve.runner import Runner
from train.augment.augmenter import asks_the_teacher
from train.augment.augmenter import origin as origin_of_views
from train.classifier import (
    WEIGHTS,
    Classifier,
    ModelConfig,
    load_classifier,
    new_classifier,
    read_spec,
    save_classifier,
)
from train.data import Data
from train.draft import Wanted
from train.fit import FitResult, Teaching, fit
from train.fit_config import FitConfig
from train.inputs import Inputs, PreparedSplits
from train.losses import class_weights
from train.models import needs_teacher, origin
from train.prune import PruneConfig, cut_otherwise, prune
from train.torch_runner import TorchRunner

_MEMORY_ITEMS = 32


class Stages:
    """The steps of `pipeline.run`, in its order. Each method returns what the next ones need."""

    def __init__(self, recipe: Recipe, data: Data, rundir: RunDir, console: Console) -> None:
        self._recipe, self._data, self._run, self._console = recipe, data, rundir, console
        self._packaged = packaged_variants(recipe)
        self._variants = [baseline(), *self._packaged]
        self._prepared = PreparedSplits()
        self._done: list[str] = []

    # -- train ---------------------------------------------------------------------------------------------------

    def fit(self) -> dict[str, FitResult]:
        """Train the teacher, then each student and control: results by model name."""
        models: list[Teacher | Student] = [self._recipe.teacher, *self._recipe.students]
        for model in models:  # not after hours of training the teacher
            class_weights(model.fit.class_weights, self._data.classes, self._data.splits["train"].labels)
        results = {TEACHER: self._fit_teacher()}
        for student in self._recipe.students:
            results[student.name] = self._fit_student(student)
        return results

    def _fit_teacher(self) -> FitResult:
        recipe = self._recipe.teacher
        config = ModelConfig(model=recipe.model, options=recipe.options)
        inputs = {"model": config, "fit": recipe.fit, **origin_of_views(recipe.fit.augment), **_origin(config)}

        def work(folder: Path) -> FitResult:
            return self._train(new_classifier(config, self._wanted()), recipe.fit, folder)

        return self._stage(TEACHER, inputs, FitResult, work, output=TEACHER, splits=("train", "validation"))

    def _fit_student(self, student: Student) -> FitResult:
        config = ModelConfig(model=student.model, options=student.options)
        name = f"students/{student.name}"
        taught = student.distill is not None or needs_teacher(student.model, student.options)
        inputs = {
            "model": config,
            "fit": student.fit,
            "distill": student.distill,
            "teacher": self._run.digest(TEACHER) if taught else None,
            # a control, which has nothing else of the teacher, still sees the same view of the images
            "preprocessing": read_spec(self._run.path / TEACHER).preprocessing if self._data.task == "image" else None,
            **self._of_views(student.fit),
            **({"prune": student.prune} if student.prune.is_active else {}),
            **_origin(config),
        }

        def work(folder: Path) -> FitResult:
            teacher = self._classifier(TEACHER)
            classifier = new_classifier(config, self._wanted(teacher))
            teaching = None
            if student.distill is not None:
                teaching = Teaching(teacher, student.distill, self._inputs("train", teacher))
            result = self._train(classifier, student.fit, folder, teaching, guide=teacher)
            return self._prune(result, student.prune, folder) if student.prune.is_active else result

        return self._stage(name, inputs, FitResult, work, output=name, splits=("train", "validation"))

    def _train(
        self,
        classifier: Classifier,
        config: FitConfig,
        folder: Path,
        teaching: Teaching | None = None,
        guide: Classifier | None = None,
    ) -> FitResult:
        train, validation = self._inputs("train", classifier), self._inputs("validation", classifier)
        say = self._console.detail
        with self._console.epochs() as on_epoch:
            seed, origins = self._recipe.seed, self._data.splits["train"].origins
            return fit(classifier, config, train, validation, seed, folder, teaching, on_epoch, say, guide, origins)

    def _prune(self, result: FitResult, config: PruneConfig, folder: Path) -> FitResult:
        """Write the student that was trained into `folder` again, without what it can do without."""
        trained = load_classifier(folder)
        pruned = prune(trained, config, self._texts("train"))
        save_classifier(pruned, folder)
        unseen = self._texts("validation")
        note = (
            f"embeddings pruned: {trained.params:,} parameters are {pruned.params:,} now; "
            f"{cut_otherwise(trained, pruned, unseen):,} of {len(unseen):,} validation texts are cut into other tokens"
        )
        self._console.detail(note)
        return result.model_copy(update={"params": pruned.params, "notes": (*result.notes, note)})

    def _texts(self, split: str) -> list[str]:
        return [item.decode() for item in self._data.splits[split].content]

    def _of_views(self, config: FitConfig) -> dict[str, str]:
        """What the views that a student sees depend on: files, and the teacher, also where it teaches nothing else."""
        guide = {"guide": self._run.digest(TEACHER)} if asks_the_teacher(config.augment) else {}
        return {**guide, **origin_of_views(config.augment)}

    def _wanted(self, teacher: Classifier | None = None) -> Wanted:
        data = self._data
        return Wanted(
            task=data.task,
            labels=data.classes,
            seed=self._recipe.seed,
            train=data.splits["train"],
            images=lambda spec: self._prepared.get("train", data.splits["train"], ImagePreparer(spec)),
            teacher=teacher,
        )

    # -- package -------------------------------------------------------------------------------------------------

    def package(self) -> dict[str, PackageResult]:
        """Export, quantize and check every variant: results by variant id."""
        return {variant.id: self._package_one(variant) for variant in self._packaged}

    def _package_one(self, variant: Variant) -> PackageResult:
        fp32 = None if variant.precision == "fp32" else Variant(variant.model, variant.role, "fp32").package
        card = {
            "name": f"{self._recipe.name}/{variant.id}",
            "recipe": self._recipe.name,
            "data": {"source": self._data.source, "fingerprint": self._data.fingerprint},
            "parents": parents(variant),
        }
        inputs = {
            "model": self._run.digest(variant.model_folder),
            "fp32": fp32 and self._run.digest(fp32),
            "precision": variant.precision,
            "role": variant.role,
            "exporters": versions(EXPORTING),
        }

        def work(folder: Path) -> PackageResult:
            classifier = self._classifier(variant.model_folder)
            return make_package(
                variant,
                classifier,
                self._run.path / fp32 if fp32 else None,
                self._inputs("calibration", classifier),
                self._data.splits["validation"].content,
                card,
                folder,
            )

        splits = ("calibration", "validation")
        return self._stage(variant.package, inputs, PackageResult, work, output=variant.package, splits=splits)

    # -- measure -------------------------------------------------------------------------------------------------

    def predict(self, split: str) -> None:
        """Score a split with every variant, on the bytes that a request would carry."""
        for variant in self._variants:
            inputs = {"variant": self._run.digest(_weights_stage(variant))}

            def work(file: Path, variant: Variant = variant) -> PredictionResult:
                return predict(self._open(variant), self._data.splits[split], file)

            output = _predictions(variant, split)
            self._stage(f"{split}/{variant.id}", inputs, PredictionResult, work, output=output, splits=(split,))

    def measure_latency(self) -> LatencyResult:
        """Time all variants, interleaved, on validation items."""
        config = self._recipe.evaluate
        inputs = {"variants": self._digests(), "evaluate": config, "hardware": hardware()}
        by_id = {variant.id: variant for variant in self._variants}

        def work(_: Path) -> LatencyResult:
            total = count_rounds(config.batch_sizes, config.threads, config.latency_samples)
            with self._console.count("rounds", total) as on_round:
                return measure_latency(
                    lambda name, threads: self._open(by_id[name], threads),
                    list(by_id),
                    self._data.splits["validation"].content,
                    config.batch_sizes,
                    config.threads,
                    config.latency_samples,
                    self._recipe.seed,
                    on_round,
                )

        return self._stage("latency", inputs, LatencyResult, work, splits=("validation",))

    def measure_memory(self) -> MemoryResult:
        """Peak memory of each variant in a process of its own."""
        folders = {
            variant.id: (variant.runtime, self._run.path / _weights_stage(variant)) for variant in self._variants
        }
        items = self._data.splits["validation"].content[:_MEMORY_ITEMS]
        inputs = {"variants": self._digests(), "hardware": hardware()}

        def work(_: Path) -> MemoryResult:
            return measure_memory(folders, items)

        return self._stage("memory", inputs, MemoryResult, work, splits=("validation",))

    # -- decide --------------------------------------------------------------------------------------------------

    def choose(self, packages: dict[str, PackageResult], latency: LatencyResult) -> Choice:
        """Rank the candidates on validation and freeze the choice. Controls are no candidates."""
        accept, test_size = self._recipe.accept, len(self._data.splits["test"])
        inputs = {
            "accept": accept,
            "predictions": {variant.id: self._run.digest(f"validation/{variant.id}") for variant in self._variants},
            "latency": latency,
            "test_size": test_size,
        }
        candidates = [variant for variant in self._packaged if variant.role != "control"]

        def work(_: Path) -> Choice:
            seen = self._run.has(f"test/{BASELINE}")
            choice = choose(
                accept,
                [
                    Measured(
                        variant,
                        self._scores(variant, "validation"),
                        reference_point(latency.variants[variant.id]),
                        packages[variant.id].size_bytes,
                    )
                    for variant in candidates
                ],
                self._scores(baseline(), "validation"),
                self._data.splits["validation"].labels,
                self._data.classes,
                test_size,
                self._recipe.seed,
            )
            return choice.model_copy(update={"after_test": seen})

        return self._stage("choice", inputs, Choice, work, splits=("validation",))

    def gather(
        self,
        fits: dict[str, FitResult],
        packages: dict[str, PackageResult],
        latency: LatencyResult,
        memory: MemoryResult,
    ) -> list[Evidence]:
        """Everything measured about each variant, the baseline first."""
        steady = is_batch_invariant(TorchRunner(self._classifier(TEACHER)), self._data.splits["validation"].content)
        return [
            Evidence(
                plan=variant,
                fit=fits[variant.model],
                package=packages.get(variant.id),
                provider="CPUExecutionProvider" if variant.id in packages else TorchRunner.provider,
                size_bytes=packages[variant.id].size_bytes if variant.id in packages else self._teacher_bytes(),
                batch_invariant=packages[variant.id].batch_invariant if variant.id in packages else steady,
                latency=latency.variants[variant.id],
                peak_rss_mb=memory.peak_rss_mb[variant.id],
                scores=self._scores(variant, "test"),
            )
            for variant in self._variants
        ]

    def forget_removed(self) -> None:
        """Delete what earlier versions of the recipe left in the folder."""
        self._run.forget_all_but(self._done)

    # -- helpers -------------------------------------------------------------------------------------------------

    def _stage(
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
            "seed": self._recipe.seed,
            "versions": versions(DECIDING),
            "classes": self._data.classes,
            "splits": {split: self._data.fingerprints[split] for split in splits},
        }
        return self._run.stage(name, {**common, **inputs}, result_type, work, output)

    def _inputs(self, split: str, classifier: Classifier) -> Inputs:
        """A split as `classifier` takes it."""
        return self._prepared.get(split, self._data.splits[split], classifier.preparer())

    def _classifier(self, folder: str) -> Classifier:
        return load_classifier(self._run.path / folder)

    def _open(self, variant: Variant, threads: int | None = None) -> Runner:
        folder = self._run.path / _weights_stage(variant)
        return TorchRunner(load_classifier(folder)) if variant.runtime == "torch" else Predictor.load(folder, threads)

    def _teacher_bytes(self) -> int:
        return (self._run.path / TEACHER / WEIGHTS).stat().st_size

    def _scores(self, variant: Variant, split: str) -> np.ndarray:
        return read_scores(self._run.path / _predictions(variant, split))

    def _digests(self) -> dict[str, str]:
        return {variant.id: self._run.digest(_weights_stage(variant)) for variant in self._variants}


def _origin(config: ModelConfig) -> dict[str, str]:
    """What a stage depends on where its model starts from files or is defined by a library."""
    found = origin(config.model, config.options)
    return {} if found is None else {"origin": found}


def _weights_stage(variant: Variant) -> str:
    """The stage, and the folder, that decides what a variant answers."""
    return variant.model_folder if variant.runtime == "torch" else variant.package


def _predictions(variant: Variant, split: str) -> str:
    folder = "predictions" if split == "test" else f"predictions/{split}"
    return f"{folder}/{variant.id}.parquet"
