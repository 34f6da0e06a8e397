"""Where candidates are tried: each step is a stage of the search's run directory, done once for the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from compress.console import Console
from compress.environment import hardware
from compress.evidence.abstain import promise_problems
from compress.evidence.drops import Drop, judged_drop
from compress.optimize.assurance import assurance_problems, chance_to_hold
from compress.optimize.config import OptimizeConfig
from compress.optimize.ledger import Ledger
from compress.optimize.shapes import Shape, measure_shape
from compress.optimize.timing import Timed, Timings, best_setting, time_packages
from compress.packaging import PackageResult, is_batch_invariant
from compress.quantize.collapse import check_label_map
from compress.recipe import TEACHER, Recipe, Student
from compress.rundir import NotDoneError, RunDir
from compress.stages.context import RunContext
from compress.stages.measuring import predict_variant
from compress.stages.packages import make_one, set_serving
from compress.stages.training import train_student, train_teachers
from compress.variants import Variant, baseline
from serve.manifest import ServingConfig
from serve.predictor import Predictor
from train.data import Data
from train.epochs import EpochRecord, Paused
from train.fit_result import FitResult
from train.inputs import PreparedSplits

REFERENCE = "packages/teacher-fp32"
_LEAST_SAMPLES = 20
# Precisions that are searched for themselves, at the price of minutes; int8-dynamic bounds what they can reach.
_SEARCHED = ("int8-mixed",)


@dataclass(frozen=True)
class Training:
    """How far a student is trained."""

    epochs: list[EpochRecord]
    seconds: float
    result: FitResult | None  # None: it stands at a checkpoint, or is looked at as it stood there
    ended: bool = False  # it is trained to its end, as the cache has it


@dataclass(frozen=True)
class Measurement:
    """A package on validation, with the runtime setting that suits it."""

    variant: Variant
    timed: Timed
    size_bytes: int
    scores: np.ndarray  # float32 [N, K]
    drop: Drop
    seconds: dict[str, float]
    problems: tuple[str, ...] = ()  # what else validation has against it: a promise of [abstain] that cannot be given
    chance: float | None = None  # that the margin holds on test too, 0..1; None where it cannot be told
    collapse: str = ""  # why it answers otherwise than the model that it was made from

    def with_timing(self, timed: Timed) -> Measurement:
        """The same, timed again."""
        return replace(self, timed=timed)


def _standing(epochs: list[EpochRecord], result: FitResult | None, ended: bool) -> Training:
    return Training(epochs, sum(epoch.seconds for epoch in epochs), result, ended)


class Bench:
    """Teacher, data and cache of a search, and what can be done with a student there."""

    def __init__(
        self,
        recipe: Recipe,
        config: OptimizeConfig,
        data: Data,
        rundir: RunDir,
        console: Console,
        ledger: Ledger,
    ) -> None:
        self.recipe, self.config, self.data, self.ledger = recipe, config, data, ledger
        self._rundir, self._console = rundir, console
        self._prepared = PreparedSplits()
        self._baseline: np.ndarray | None = None

    @property
    def path(self) -> Path:
        return self._rundir.path

    def context(self, student: Student | None = None, serving: ServingConfig | None = None) -> RunContext:
        """A run of the recipe with this student alone, in the search's directory."""
        changed: dict[str, object] = {"students": () if student is None else (student,)}
        if serving is not None:
            changed["serving"] = serving
        context = RunContext(self.recipe.model_copy(update=changed), self.data, self._rundir, self._console)
        context.prepared = self._prepared
        return context

    def teach(self, students: Sequence[Student] = ()) -> FitResult:
        """Train the teacher, or take it as it is, and ask it about validation.

        Raises UserError before that where one of the `students` could not be trained after it.
        """
        run = self.context()
        result = train_teachers(run, students)[TEACHER]
        predict_variant(run, baseline(), "validation")
        self._baseline = run.scores(baseline(), "validation")
        self.check_labels()
        return result

    def check_labels(self) -> None:
        """Raise UserError where the teacher is right under another order of the labels: not after hours of search."""
        answers, labels = self.teacher_scores().argmax(axis=1), self.data.splits["validation"].labels
        check_label_map(answers, labels, self.data.classes, self.recipe.teacher.model)

    def teacher_accuracy(self) -> float:
        """Of the teacher in torch, 0..1, on validation."""
        return self.accuracy(self.teacher_scores())

    def teacher_scores(self) -> np.ndarray:
        assert self._baseline is not None
        return self._baseline

    def accuracy(self, scores: np.ndarray) -> float:
        return float((scores.argmax(axis=1) == self.data.splits["validation"].labels).mean())

    def shape(self, student: Student) -> tuple[Shape, float]:
        """Latency and size of a network like that, and the seconds that it took to know."""
        config, run = self.config, self.context(student)
        self._package(run, Variant(TEACHER, "teacher", "fp32"))
        precisions = [name for name in self.recipe.quantize.precisions if name not in _SEARCHED]
        if len(precisions) < len(self.recipe.quantize.precisions) and not any("int8" in name for name in precisions):
            precisions.append("int8-dynamic")
        ordered = tuple(sorted(precisions, key=lambda name: name != "fp32"))
        threads, levels = config.threads or (1,), config.graph_levels or ("all",)
        samples = max(_LEAST_SAMPLES, config.latency_samples // 4)  # enough to see what is out of reach
        shape = measure_shape(run, student, self.path / REFERENCE, ordered, threads, levels, samples)
        return shape, self._took(f"shape/{student.name}")

    def train(self, student: Student, until: int) -> Training:
        """Train a student to the end of epoch `until`, or of the budget; what it was trained before is kept.

        One that was trained further is seen as it stood then, so that a search that is gone on with decides as before.
        """
        run, began = self.context(student), self.ledger.now()
        run.pause = lambda record: record.epoch >= until or self.ledger.over()
        try:
            result = train_student(run, student)
        except Paused as paused:
            self.ledger.on_training(student.name, began, paused.records)
            return _standing(paused.records[:until], None, ended=False)
        self.ledger.on_training(student.name, began, result.epochs)
        return _standing(result.epochs[:until], result if until >= len(result.epochs) else None, ended=True)

    def variants(self, student: Student | None) -> list[Variant]:
        """The teacher's packages, or a student's: fp32 first."""
        name = TEACHER if student is None else student.name
        return [variant for variant in self.context(student).packaged if variant.model == name]

    def is_shaped(self, student: Student) -> bool:
        """Whether its shape was measured before, so that to know it costs nothing."""
        return self._is_known(lambda: self.shape(student))

    def is_trained(self, student: Student) -> bool:
        """Whether it was trained to its end before."""
        return self._is_known(lambda: train_student(self.context(student), student))

    def is_packaged(self, student: Student | None, variant: Variant) -> bool:
        """Whether the package was made before from the same."""
        return self._is_known(lambda: self._package(self.context(student), variant))

    def _is_known(self, step: Callable[[], object]) -> bool:
        try:
            with self._rundir.as_it_is():
                step()
        except NotDoneError:
            return False
        return True

    def measure(self, student: Student | None, variant: Variant) -> Measurement:
        """Package a trained model, find its runtime setting, and score validation with it."""
        run = self.context(student)
        package = self._package(run, variant)
        timed = self._setting(run, variant, package.batch_invariant)
        usual = self.recipe.serving or ServingConfig()
        setting = usual.model_copy(update={"threads": timed.threads, "graph_level": timed.graph_level})
        if setting != usual or self.recipe.serving is not None:
            run = self.context(student, setting)
        set_serving(run, [run.path / variant.package])
        predict_variant(run, variant, "validation")
        scores = run.scores(variant, "validation")
        drop = self._drop(scores)
        chance = chance_to_hold(self.recipe.accept, drop, round(drop.n * self._share))
        over = self.upper(drop) > self.recipe.accept.max_drop_points  # which says more
        doubts = [] if over else assurance_problems(chance, self.config.assurance, drop.n)
        return Measurement(
            variant,
            timed,
            package.size_bytes,
            scores,
            drop,
            {
                "package": self._took(variant.package),
                "timing": self._took(f"timing/{variant.id}"),
                "validation": self._took(f"validation/{variant.id}"),
            },
            tuple(promise_problems(package.abstention) + doubts),
            chance,
            package.collapse,
        )

    def time_together(self, found: list[Measurement], samples: int) -> dict[str, Timed]:
        """Time packages once more, in turns with one another: each at its own setting, by id."""
        packages = {one.variant.id: self.path / one.variant.package for one in found}
        threads = tuple(sorted({one.timed.threads for one in found}))
        levels = tuple(sorted({one.timed.graph_level for one in found}))
        inputs = {
            "packages": {name: self._rundir.digest(f"packages/{name}") for name in packages},
            "settings": [threads, levels, samples],
            "hardware": hardware(),
        }
        items, run = self.data.splits["validation"].content, self.context()

        def work(_: Path) -> Timings:
            reference = self.path / REFERENCE
            return time_packages(packages, reference, items, threads, levels, samples, self.recipe.seed)

        timings = run.stage("timing-together", inputs, Timings, work, splits=("validation",))
        chosen = {one.variant.id: (one.timed.threads, one.timed.graph_level) for one in found}
        return {
            name: next(one for one in timed if (one.threads, one.graph_level) == chosen[name])
            for name, timed in timings.packages.items()
        }

    def _setting(self, run: RunContext, variant: Variant, invariant: bool) -> Timed:
        """The runtime setting of a package: the fastest, unless its answers depend on the batch there alone."""
        config = self.config
        threads, levels = config.threads or (1,), config.graph_levels or ("all",)
        self._package(run, Variant(TEACHER, "teacher", "fp32"))
        inputs = {
            "package": run.rundir.digest(variant.package),
            "reference": run.rundir.digest(REFERENCE),
            "settings": [threads, levels, config.latency_samples],
            "hardware": hardware(),
        }
        items, path = self.data.splits["validation"].content, run.path / variant.package

        def work(_: Path) -> Timings:
            reference = run.path / REFERENCE
            packages = {variant.id: path}
            return time_packages(packages, reference, items, threads, levels, config.latency_samples, run.recipe.seed)

        name = f"timing/{variant.id}"
        timed = run.stage(name, inputs, Timings, work, splits=("validation",)).packages[variant.id]
        best = best_setting(timed)
        usual = [one for one in timed if one.graph_level == "all"]
        if best.graph_level == "all" or not invariant or not usual:
            return best
        steady = is_batch_invariant(Predictor.load(path, best.threads, best.graph_level), items)
        return best if steady else best_setting(usual)

    def _drop(self, scores: np.ndarray) -> Drop:
        labels, seed = self.data.splits["validation"].labels, self.recipe.seed
        return judged_drop(self.recipe.accept, scores, self.teacher_scores(), labels, self.data.classes, seed)

    def upper(self, drop: Drop) -> float:
        """The upper 97.5 % limit of a drop, as a test split of its size will have it."""
        return drop.projected_upper(self._share)

    @property
    def _share(self) -> float:
        """How many times as many items test has as validation."""
        return len(self.data.splits["test"]) / len(self.data.splits["validation"])

    def _package(self, run: RunContext, variant: Variant) -> PackageResult:
        return make_one(run, variant)

    def _took(self, stage: str) -> float:
        return self._rundir.seconds()[stage]
