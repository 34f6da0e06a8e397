"""The search: the teacher's precisions first, then students in waves, the cheapest questions first.

1. What shape has it? A student that cannot meet a limit on latency or size, or cannot be faster (or smaller) than
   what is feasible already, is never trained.
2. How good is it after a few epochs? Successive halving; those that go on, go on from where they are.
3. How good are its packages on validation? Only such trials are candidates.

The budget is looked at before each step, and a step that would not be done within it is not begun (`forecast.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from compress.optimize.bench import Bench
from compress.optimize.forecast import Forecast, too_late
from compress.optimize.halving import Standing, promoted, ranked, rungs
from compress.optimize.records import State
from compress.optimize.shapes import Shape
from compress.optimize.space import Design, Proposals
from compress.optimize.timing import Timed, best_setting
from compress.optimize.trials import Trials
from compress.recipe import TEACHER, Student
from compress.variants import Variant
from serve.errors import LimbeckError
from train.epochs import EpochRecord
from train.models import pruning_steps, takes_channels, takes_layers

_SLACK = 1.1  # of a limit on latency: a busy machine may be so much slower for a moment
BUDGET, EXHAUSTED = "the budget is spent", "nothing is left that could be better"
SHORT = "what is left of the budget is too short for what is left to try"


class BudgetOver(Exception):  # noqa: N818  # no error: the search ends
    """The budget is spent, or too short for what comes next, as its message says; what there is counts."""


@dataclass
class Contender:
    """A student that is worth training."""

    design: Design
    shape: Shape
    seconds: dict[str, float]  # so far
    aim: float
    epochs: list[EpochRecord]
    ended: bool = False  # it was trained to its end, of which `epochs` may be the first

    @property
    def pace(self) -> float:
        """What its fp32 graph takes for an item, over what the teacher's takes."""
        return best_setting(self.shape.timings["fp32"]).relative

    @property
    def student(self) -> Student:
        return self.design.student

    @property
    def accuracy(self) -> float | None:
        return max((epoch.accuracy for epoch in self.epochs), default=None)

    @property
    def standing(self) -> Standing:
        """How it compares with others of its kind."""
        begun = takes_layers(self.student.model) or takes_channels(self.student.model)
        return Standing(self.design.name, self.accuracy or 0.0, self.aim, "the teacher's weights" if begun else "new")


class Search:
    """One search on a bench. `say` is told what is worth knowing besides the trials."""

    def __init__(self, bench: Bench, trials: Trials, proposals: Proposals, say: Callable[[str], None]) -> None:
        self._bench, self._trials, self._proposals, self._say = bench, trials, proposals, say
        self._paused: dict[str, Contender] = {}
        self._waiting: dict[str, Contender] = {}  # worth training, and without a record yet
        self._forecast = Forecast(bench.recipe.quantize.mixed.budget_seconds)
        self._short = False  # whether something was not begun for want of time
        self._no_more = False  # whether there is no time for the shape of another student

    def run(self) -> str:
        """Try until the budget is spent or nothing is left; why it ended."""
        try:
            self._evaluate(None, {}, 0)
            while not self._no_more and (wave := self._proposals.next(self._bench.config.together)):
                self._compete([one for design in wave if (one := self._screen(design)) is not None])
            for contender in self._second_chances():
                self._finish(contender)
        except BudgetOver as over:
            for contender in list(self._waiting.values()):
                self._unfinished(contender, _cut_short(contender))
            return str(over)
        return SHORT if self._short else EXHAUSTED

    def _check_budget(self) -> None:
        if self._bench.ledger.over():
            raise BudgetOver(BUDGET)

    def _unfinished(self, contender: Contender, why: str) -> None:
        self._waiting.pop(contender.design.name, None)
        self._trials.left(
            contender.student,
            "unfinished",
            why,
            contender.seconds,
            contender.shape,
            len(contender.epochs),
            contender.accuracy,
        )
        self._proposals.drop(contender.design)

    # 1. Shapes

    def _screen(self, design: Design) -> Contender | None:
        """What is worth training; the rest is recorded with the reason."""
        self._check_budget()
        student = design.student
        try:
            late = too_late("", self._forecast.shape(), self._bench.ledger.left())
            if late and not self._bench.is_shaped(student):
                self._short = self._no_more = True
                self._proposals.drop(design)
                return None
            shape, took = self._bench.shape(student)
        except LimbeckError as error:
            self._trials.left(student, "failed", error.message, {})
            self._proposals.drop(design)
            return None
        self._forecast.shaped(took)
        contender = Contender(design, shape, {"shape": took}, self._aim(shape), [])
        why = self._too_slow_or_large(student, shape) or self._no_better(contender)
        if why:
            self._trials.left(student, "screened", why, contender.seconds, shape)
            self._tell_shape(contender)
            return None
        self._waiting[design.name] = contender
        return contender

    def _too_slow_or_large(self, student: Student, shape: Shape) -> str | None:
        """Which limit no precision of it can meet, whatever its weights will be."""
        accept = self._bench.recipe.accept
        smallest, (_, fastest) = min(shape.sizes.values()), shape.fastest()
        if accept.max_p95_ms is not None and fastest.latency.total_p50 > _SLACK * accept.max_p95_ms:
            median = f"{fastest.latency.total_p50:.3g} ms"
            return f"not trained: its median alone is {median} at best, over the limit of {accept.max_p95_ms:g} ms"
        if accept.max_size_mb is not None and smallest > accept.max_size_mb * 1e6 and not student.prune.is_active:
            return f"not trained: it has {smallest / 1e6:.3g} MB at best, over the limit of {accept.max_size_mb:g} MB"
        return None

    def _no_better(self, contender: Contender) -> str | None:
        """Which feasible trial it cannot beat, whatever its weights will be."""
        best = self._trials.best()
        if best is None:
            return None
        if self._bench.recipe.accept.prefer == "size":
            smallest = min(contender.shape.sizes.values())
            pruned = contender.student.prune.is_active
            return None if pruned or smallest < (best.size_bytes or 0) else f"not trained: no smaller than {best.id}"
        if contender.aim < (best.relative or 0.0):
            return None
        return f"not trained: no faster than {best.id}, which is feasible"

    def _aim(self, shape: Shape) -> float:
        """The best that a student of this shape can come to: relative latency, or bytes."""
        accept = self._bench.recipe.accept
        if accept.prefer == "size":
            return float(min(shape.sizes.values()))
        best: dict[str, Timed] = {name: best_setting(timed) for name, timed in shape.timings.items()}
        limit = float("inf") if accept.max_size_mb is None else accept.max_size_mb * 1e6
        fitting = [one.relative for name, one in best.items() if shape.sizes[name] <= limit]
        return min(fitting or [one.relative for one in best.values()])

    # 2. Training, a little at a time

    def _compete(self, contenders: list[Contender]) -> None:
        """Successive halving among the students of a wave, the cheapest first."""
        config, items = self._bench.config, len(self._bench.data.splits["validation"])
        alive = sorted(contenders, key=lambda one: (one.aim, one.design.name))
        marks = {one.design.name: rungs(one.student.fit.epochs, len(alive), config.keep_one_of) for one in alive}
        steps = min((len(each) for each in marks.values()), default=0)
        for step in range(steps, 1, -1):
            waiting = [one for one in alive if self._train(one, marks[one.design.name][-step])]
            by_name = {one.design.name: one for one in waiting}
            standings = [one.standing for one in by_name.values()]
            kept = promoted(standings, items, config.keep_one_of)
            for name, one in by_name.items():
                if name not in kept:
                    self._stop(one, f"after epoch {len(one.epochs)} others that were trained beside it did better")
            alive = [by_name[name] for name in kept]
        for one in sorted(alive, key=lambda one: (one.aim, one.design.name)):
            self._finish(one)

    def _train(self, contender: Contender, until: int) -> bool:
        """Train to the end of an epoch; whether the student is to be compared then, and not evaluated already."""
        self._check_budget()
        if not self._can_end(contender):
            return False
        training = self._bench.train(contender.student, until)
        contender.epochs, contender.ended = training.epochs, training.ended
        contender.seconds["training"] = training.seconds
        self._forecast.trained(contender.design.name, contender.shape.macs, training.epochs)
        if training.result is not None:
            self._evaluate(contender, contender.seconds, len(training.epochs))
            return False
        if len(training.epochs) < until:
            raise BudgetOver(BUDGET)
        return self._can_end(contender)

    def _can_end(self, contender: Contender) -> bool:
        """Whether the budget is enough to train it to the end and package it, by what that took so far.

        Of a student that was not trained yet, whether it is enough for the training that cannot be left: of the first
        epoch, and of those between the steps of pruning.
        """
        name, student = contender.design.name, contender.student
        epoch = self._forecast.epoch(name, contender.shape.macs)
        if contender.ended or epoch is None:
            return True
        if contender.epochs:
            more = (student.fit.epochs - len(contender.epochs)) * epoch
            more += self._forecast.package(name, "fp32", contender.pace) or 0.0
            step = f"after epoch {len(contender.epochs)} of {student.fit.epochs} it"
        else:
            steps, between = pruning_steps(student.model, student.options)
            more, step = (1 + (steps - 1) * between) * epoch, "its training until it can be left"
        if more <= self._bench.ledger.left() or (not contender.epochs and self._bench.is_trained(student)):
            return True
        self._short = True
        self._unfinished(contender, f"{step} would need {more:,.0f} s more, which the budget has not")
        return False

    def _finish(self, contender: Contender) -> None:
        """Train to the end and evaluate, unless something feasible was found that it cannot beat."""
        why = self._no_better(contender)
        if why:
            self._stop(contender, why.removeprefix("not trained: "), "screened" if not contender.epochs else "stopped")
            return
        self._paused.pop(contender.design.name, None)
        self._waiting[contender.design.name] = contender
        self._train(contender, contender.student.fit.epochs)

    def _stop(self, contender: Contender, why: str, state: State = "stopped") -> None:
        seconds, shape = contender.seconds, contender.shape
        self._waiting.pop(contender.design.name, None)
        self._trials.left(
            contender.student,
            state,
            why,
            seconds,
            shape,
            len(contender.epochs),
            contender.accuracy,
        )
        if state == "stopped":
            self._paused[contender.design.name] = contender
        self._tell_shape(contender)

    def _second_chances(self) -> list[Contender]:
        """Those that were stopped, the best first: there is time, and nothing new to try."""
        items = len(self._bench.data.splits["validation"])
        standings = [one.standing for one in self._paused.values()]
        found = [self._paused[standing.name] for standing in ranked(standings, items)]
        return [one for one in found if self._no_better(one) is None]

    # 3. Packages

    def _evaluate(self, contender: Contender | None, seconds: dict[str, float], epochs: int) -> None:
        """Every precision of a trained model; the teacher where there is no contender, whose fp32 must be had."""
        student = None if contender is None else contender.student
        name, pace = (TEACHER, 1.0) if contender is None else (contender.design.name, contender.pace)
        for variant in self._bench.variants(student):
            first = variant.precision == "fp32"
            why = None if contender is None and first else self._no_time(student, variant, pace)
            try:
                if why is None:
                    found = self._bench.measure(student, variant)
                    self._forecast.packaged(name, variant.precision, pace, sum(found.seconds.values()))
                    self._trials.complete(student, found, seconds, epochs)
                else:
                    self._trials.omitted(student, variant.precision, why, seconds, epochs)
            except LimbeckError as error:
                why = error.message
                if student is not None:
                    self._trials.left(student, "failed", why, seconds, precision=variant.precision)
                elif first:
                    raise
                else:
                    self._say(f"teacher-{variant.precision} failed: {why}")
            self._waiting.pop(name, None)
            seconds = {}
            if first and why is not None:
                break  # the others are made from it
        if contender is not None:
            self._tell(contender)

    def _no_time(self, student: Student | None, variant: Variant, pace: float) -> str | None:
        """Why a package is not begun; None where it is, or was made before."""
        seconds = self._forecast.package(variant.model, variant.precision, pace)
        why = too_late(f"the {variant.precision} package", seconds, self._bench.ledger.left())
        if why is None or self._bench.is_packaged(student, variant):
            return None
        self._short = True
        return why

    # What Optuna is told

    def _tell(self, contender: Contender) -> None:
        accept = self._bench.recipe.accept
        found = [trial for trial in self._trials.of(contender.design.name) if trial.state == "complete"]
        if not found:
            self._proposals.drop(contender.design)
            return
        best = min(found, key=lambda trial: (not trial.feasible, self._trials.aim(trial)))
        over = (best.drop_upper or 0.0) - accept.max_drop_points
        self._proposals.tell(
            contender.design,
            self._trials.aim(best),
            {"drop": over, **self._limits(best.p95_ms or 0.0, best.size_bytes or 0)},
        )

    def _tell_shape(self, contender: Contender) -> None:
        """Of a student that was left: its limits are known, its drop is what its epochs showed, or nothing."""
        _, fastest = contender.shape.fastest()
        drop = 0.0
        if contender.accuracy is not None:
            lost = 100 * (self._bench.teacher_accuracy() - contender.accuracy)
            drop = lost - self._bench.recipe.accept.max_drop_points
        limits = self._limits(fastest.latency.total_p95, min(contender.shape.sizes.values()))
        self._proposals.tell(contender.design, contender.aim, {"drop": drop, **limits})

    def _limits(self, p95_ms: float, size_bytes: int) -> dict[str, float]:
        accept = self._bench.recipe.accept
        return {
            "p95": 0.0 if accept.max_p95_ms is None else p95_ms / accept.max_p95_ms - 1,
            "size": 0.0 if accept.max_size_mb is None else size_bytes / (accept.max_size_mb * 1e6) - 1,
        }


def _cut_short(contender: Contender) -> str:
    if not contender.epochs:
        return "the budget ended before it was trained"
    return f"the budget ended after epoch {len(contender.epochs)} of {contender.student.fit.epochs}"
