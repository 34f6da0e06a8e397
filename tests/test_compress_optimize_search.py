"""The search on a bench that makes up what students are worth: what is asked of whom, and what is never asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compress.evidence.drops import Drop, share_drop
from compress.optimize.bench import Measurement, Training
from compress.optimize.config import OptimizeConfig
from compress.optimize.ledger import Ledger
from compress.optimize.records import OPTIMIZE_JSON, Record, Trial, nearest_of
from compress.optimize.search import BUDGET, EXHAUSTED, SHORT, Search
from compress.optimize.shapes import Shape
from compress.optimize.space import Proposals
from compress.optimize.timing import Timed, best_setting
from compress.optimize.trials import Trials
from compress.optimize.wording import told
from compress.quantize.config import Quantize
from compress.recipe import Accept, Student
from compress.report.schema import Latency
from compress.variants import Variant
from serve.errors import LimbeckError, UserError
from train.epochs import EpochRecord
from train.fit_result import FitResult

ITEMS, EPOCHS = 1000, 9
TEACHER_RIGHT = 950


@dataclass
class Made:
    """What a student of the space would turn out to be."""

    ms: float
    size: int
    right: int  # of ITEMS, once it is trained
    seconds: float = 1.0  # an epoch
    fails: bool = False
    packaging: dict[str, float] = field(default_factory=dict)  # seconds, by precision
    breaks: tuple[str, ...] = ()  # precisions that cannot be made


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def timed(ms: float, threads: int = 1, level: Any = "all") -> Timed:
    latency = Latency(
        batch=1, threads=threads, total_p50=ms, total_p95=1.2 * ms, total_p99=None, compute_p50=ms / 2, n=100
    )
    return Timed(threads=threads, graph_level=level, latency=latency, relative=ms / 10)


class Bench:
    """In the place of compress.optimize.bench.Bench; fp32 has twice the latency and four times the size of int8."""

    def __init__(self, made: Mapping[str, Made], accept: Accept, budget: str, together: int) -> None:
        self.made, self.clock = {"teacher": Made(10.0, 4000, TEACHER_RIGHT), **made}, Clock()
        self.recipe: Any = SimpleNamespace(
            accept=accept,
            teacher=SimpleNamespace(model="builtin:mlp-8", options={}),
            seed=0,
            quantize=Quantize(),
        )
        self.config = OptimizeConfig(budget=budget, together=together)
        self.data = SimpleNamespace(splits={"validation": range(ITEMS), "test": range(ITEMS)})
        self.ledger = Ledger(self.config.seconds, self.clock)
        self.trained: dict[str, int] = {}
        self.asked: list[str] = []
        self.before: set[str] = set()  # what a search before this one has asked for

    def shape(self, student: Student) -> tuple[Shape, float]:
        made = self.made[student.name]
        self.asked.append(f"shape {student.name}")
        self.clock.now += 0.5
        if made.fails:
            raise UserError("the teacher has no such layers")
        sizes = {"fp32": 4 * made.size, "int8-dynamic": made.size}
        timings = {"fp32": [timed(2 * made.ms)], "int8-dynamic": [timed(made.ms)]}
        return Shape(params=1, macs=1, sizes=sizes, timings=timings), 0.5

    def train(self, student: Student, until: int) -> Training:
        made, done = self.made[student.name], self.trained.get(student.name, 0)
        while done < until:
            done += 1
            self.clock.now += made.seconds
            self.asked.append(f"epoch {done} {student.name}")
            if self.ledger.over() and done < student.fit.epochs:
                break
        self.trained[student.name] = done
        epochs = [
            EpochRecord(
                epoch=at, loss=1.0, accuracy=made.right / ITEMS * (0.9 + 0.1 * at / EPOCHS), seconds=made.seconds
            )
            for at in range(1, done + 1)
        ]
        whole = FitResult(epochs=epochs, best_epoch=done, params=1, macs=1) if done == student.fit.epochs else None
        return Training(epochs, done * made.seconds, whole)

    def variants(self, student: Student | None) -> list[Variant]:
        name = "teacher" if student is None else student.name
        return [Variant(name, "student", "fp32"), Variant(name, "student", "int8-dynamic")]

    def is_shaped(self, student: Student) -> bool:
        return f"shape {student.name}" in self.before

    def is_trained(self, student: Student) -> bool:
        return self.trained.get(student.name) == EPOCHS

    def is_packaged(self, student: Student | None, variant: Variant) -> bool:
        return f"measure {variant.id}" in self.before

    def measure(self, student: Student | None, variant: Variant) -> Measurement:
        made = self.made[variant.model]
        assert student is None or self.trained[student.name] == EPOCHS
        self.asked.append(f"measure {variant.id}")
        took = 0.0 if self.is_packaged(student, variant) else made.packaging.get(variant.precision, 0.0)
        self.clock.now += took
        if variant.precision in made.breaks:
            raise LimbeckError(f"{variant.precision} cannot be made")
        factor = 1 if variant.precision == "int8-dynamic" else 2
        scores = np.zeros((ITEMS, 2), np.float32)
        scores[: made.right, 1] = 1.0
        drop = share_drop(np.arange(ITEMS) < made.right, np.arange(ITEMS) < TEACHER_RIGHT)
        seconds = {"package": 0.1 + took, "timing": 0.1, "validation": 0.1}
        return Measurement(variant, timed(made.ms * factor), made.size * factor**2, scores, drop, seconds)

    def teacher_accuracy(self) -> float:
        return TEACHER_RIGHT / ITEMS

    def accuracy(self, scores: np.ndarray) -> float:
        return float(scores[:, 1].mean())

    def upper(self, drop: Drop) -> float:
        return drop.projected_upper(1.0)


@dataclass
class Found:
    bench: Bench
    trials: Trials
    ended: str
    record: Record

    def states(self) -> dict[str, str]:
        return {trial.model: trial.state for trial in self.record.trials}

    def trial(self, name: str) -> Trial:
        return next(trial for trial in self.record.trials if trial.id == name)

    @property
    def trained(self) -> set[str]:
        return set(self.bench.trained)


def search(
    folder: Path,
    made: Mapping[str, Made],
    budget: str = "1h",
    together: int = 9,
    before: frozenset[str] = frozenset(),
    **accept: Any,
) -> Found:
    limits = Accept(**{"max_drop_points": 5.0, **accept})
    bench = Bench(made, limits, budget, together)
    bench.before |= before
    made = {name: one for name, one in made.items() if name != "teacher"}
    fit: Any = {"epochs": EPOCHS}
    own = [
        Student(name=name, model="builtin:mlp-8", options={"dropout": at / 100}, fit=fit)
        for at, name in enumerate(made)
    ]
    record = Record(
        name="made-up",
        task="image",
        source="nowhere",
        command=None,
        accept=limits,
        metric="accuracy",
        validation_items=ITEMS,
        test_items=ITEMS,
        teacher="builtin:mlp-8",
        optimize={},
        designs=len(made),
        budget_seconds=bench.config.seconds,
        spent_seconds=0,
        ended="",
        trials=[],
    )
    trials = Trials(bench, record, lambda: record.write(folder), lambda _: None)  # type: ignore[arg-type]
    proposals = Proposals([], own, seed=0, startup=3)
    ended = Search(bench, trials, proposals, lambda _: None).run()  # type: ignore[arg-type]
    return Found(bench, trials, ended, record)


def test_the_teachers_precisions_are_tried_before_any_student(tmp_path: Path) -> None:
    found = search(tmp_path, {"small": Made(1.0, 100, 949)})
    assert found.bench.asked[:3] == ["measure teacher-fp32", "measure teacher-int8-dynamic", "shape small"]
    assert [trial.id for trial in found.record.trials[:2]] == ["teacher-fp32", "teacher-int8-dynamic"]
    best = found.trials.best()
    assert best is not None
    assert best.id == "small-int8-dynamic"
    assert found.ended == EXHAUSTED


def test_what_cannot_keep_a_limit_is_never_trained(tmp_path: Path) -> None:
    made = {"slow": Made(9.0, 100, 950), "large": Made(1.0, 9_000_000, 950), "fits": Made(2.0, 100, 949)}
    found = search(tmp_path, made, max_p95_ms=5.0, max_size_mb=1.0)
    assert found.trained == {"fits"}
    assert found.states()["slow"] == found.states()["large"] == "screened"
    slow, large = found.trial("slow-int8-dynamic"), found.trial("large-int8-dynamic")
    assert slow.why == "not trained: its median alone is 9 ms at best, over the limit of 5 ms"
    assert large.why == "not trained: it has 9 MB at best, over the limit of 1 MB"
    assert slow.seconds == {"shape": 0.5}
    assert slow.measured_untrained


def test_what_cannot_beat_a_feasible_one_is_never_trained(tmp_path: Path) -> None:
    made = {"slower": Made(12.0, 100, 950), "faster": Made(9.0, 100, 949)}
    found = search(tmp_path, made)
    assert found.trained == {"faster"}
    assert (
        found.trial("slower-int8-dynamic").why == "not trained: no faster than teacher-int8-dynamic, which is feasible"
    )
    assert search(tmp_path, made, prefer="size").trained == {"faster", "slower"}


def test_those_that_do_worse_are_stopped_and_the_rest_goes_on_where_it_was(tmp_path: Path) -> None:
    made = {f"s{at}": Made(1.0 + at / 10, 100, 500 + 50 * at) for at in range(9)}
    found = search(tmp_path, made, budget="60s")
    epochs = [line for line in found.bench.asked if line.startswith("epoch")]
    assert len(epochs) == len(set(epochs))  # none was trained twice
    assert found.bench.trained["s8"] == EPOCHS
    first = [line for line in epochs if line.startswith("epoch 2 ")]
    assert {line.split()[-1] for line in first[:3]} == {"s8", "s7", "s6"}  # after one epoch of all nine
    assert found.trial("s0-int8-dynamic").epochs < EPOCHS


def test_once_nothing_new_is_left_those_that_were_stopped_go_on(tmp_path: Path) -> None:
    made = {"good": Made(2.0, 100, 949), "rival": Made(1.0, 100, 800), "third": Made(1.5, 100, 790)}
    found = search(tmp_path, made)
    assert found.trained == set(made)
    assert {trial.state for trial in found.record.trials} == {"complete"}
    numbers = [trial.number for trial in found.record.trials]
    assert numbers == sorted(set(numbers))


def test_the_budget_ends_the_search_and_what_was_trained_is_told(tmp_path: Path) -> None:
    found = search(tmp_path, {"long": Made(1.0, 100, 949, seconds=10.0)}, budget="35s")
    assert found.ended == BUDGET
    long = found.trial("long-int8-dynamic")
    assert (long.state, long.epochs) == ("unfinished", 4)
    assert long.why == "the budget ended after epoch 4 of 9"
    best = found.trials.best()
    assert best is not None
    assert best.id == "teacher-int8-dynamic"


def test_what_the_budget_cannot_end_makes_room_for_what_it_can(tmp_path: Path) -> None:
    made = {"long": Made(1.0, 100, 950, seconds=20.0), "short": Made(2.0, 100, 949, seconds=1.0)}
    found = search(tmp_path, made, budget="100s", together=2)
    assert found.trial("long-int8-dynamic").state == "unfinished"
    assert "it would need 120 s more" in found.trial("long-int8-dynamic").why
    assert found.trial("short-int8-dynamic").feasible


def test_a_package_that_would_not_be_made_in_time_is_not_begun(tmp_path: Path) -> None:
    teacher = Made(10.0, 4000, TEACHER_RIGHT, packaging={"fp32": 50.0, "int8-dynamic": 50.0})
    small = Made(1.0, 100, 949, packaging={"fp32": 5.0, "int8-dynamic": 6.0})
    found = search(tmp_path, {"teacher": teacher, "small": small}, budget="80s")
    omitted = found.trial("teacher-int8-dynamic")
    assert (omitted.state, omitted.feasible) == ("omitted", False)
    assert omitted.why.replace("\xa0", " ") == (
        "the int8-dynamic package would take about 40 s, by what the like took, and 30 s of the budget are left"
    )
    assert found.trial("small-fp32").state == found.trial("small-int8-dynamic").state == "complete"  # these fit
    assert found.bench.clock.now <= 80
    assert found.ended == SHORT
    assert "not begun for want of time: teacher-int8-dynamic" in told(tmp_path, found.record)

    again = search(tmp_path, {"teacher": teacher}, budget="80s", before=frozenset(["measure teacher-int8-dynamic"]))
    assert again.trial("teacher-int8-dynamic").state == "complete"  # made before, so it costs nothing
    assert again.ended == EXHAUSTED


def test_a_trained_student_whose_packages_find_no_time_is_told(tmp_path: Path) -> None:
    teacher = Made(10.0, 4000, TEACHER_RIGHT)
    slow = Made(1.0, 100, 949, seconds=3.0, packaging={"fp32": 9.0, "int8-dynamic": 1.0})
    found = search(tmp_path, {"teacher": teacher, "slow": slow}, budget="40s")
    assert found.trial("slow-fp32").state == "complete"
    assert found.trial("slow-int8-dynamic").state == "complete"
    found = search(tmp_path, {"teacher": teacher, "slow": slow}, budget="28s")
    assert found.trial("slow-fp32").state == "complete"  # nothing like it was known: it was begun
    assert found.trial("slow-int8-dynamic").why == "the budget ended before the int8-dynamic package"
    assert found.trial("slow-int8-dynamic").cost == 0  # the training is its model's first trial's


def test_an_epoch_is_not_begun_that_the_quickest_so_far_shows_to_be_too_long(tmp_path: Path) -> None:
    made = {"first": Made(1.0, 100, 949, seconds=5.0), "second": Made(1.1, 100, 950, seconds=5.0)}
    found = search(tmp_path, made, budget="49s", together=1, max_drop_points=0.1)
    assert found.trained == {"first"}
    assert found.trial("second-int8-dynamic").why == (
        "its training until it can be left would need 5 s more, which the budget has not"
    )
    assert found.bench.clock.now < 49


def test_all_that_were_waiting_when_the_budget_ended_are_told_with_their_cost(tmp_path: Path) -> None:
    seconds = {"a": 1.0, "b": 1.0, "long": 100.0, "later": 1.0}
    made = {name: Made(1.0 + at / 10, 100, 900, seconds=took) for at, (name, took) in enumerate(seconds.items())}
    found = search(tmp_path, made, budget="30s")
    assert found.ended == BUDGET
    told_why = {trial.model: trial.why for trial in found.record.trials if trial.model in made}
    assert told_why == {
        "a": "the budget ended after epoch 1 of 9",
        "b": "the budget ended after epoch 1 of 9",
        "long": "after epoch 1 of 9 it would need 800 s more, which the budget has not",
        "later": "the budget ended before it was trained",
    }
    assert found.trial("a-int8-dynamic").seconds == {"shape": 0.5, "training": 1.0}
    assert {trial.state for trial in found.record.trials if trial.model in made} == {"unfinished"}


def test_without_fp32_nothing_is_made_from_it(tmp_path: Path) -> None:
    found = search(tmp_path, {"odd": Made(1.0, 100, 949, breaks=("fp32",)), "small": Made(1.0, 100, 949)})
    assert found.trial("odd-fp32").state == "failed"
    assert "measure odd-int8-dynamic" not in found.bench.asked
    assert found.trial("small-int8-dynamic").feasible
    with pytest.raises(LimbeckError, match="fp32 cannot be made"):
        search(tmp_path, {"teacher": Made(10.0, 4000, TEACHER_RIGHT, breaks=("fp32",))})


def test_a_student_that_cannot_be_made_costs_nothing_but_itself(tmp_path: Path) -> None:
    found = search(tmp_path, {"broken": Made(1.0, 1, 1, fails=True), "small": Made(1.0, 100, 949)})
    assert found.trial("broken-fp32").why == "the teacher has no such layers"
    assert found.trial("small-fp32").feasible


def test_the_nearest_is_the_one_that_breaks_its_limits_least(tmp_path: Path) -> None:
    made = {"a": Made(1.0, 100, 880), "b": Made(1.0, 100, 700)}
    found = search(tmp_path, made, max_drop_points=0.5, max_p95_ms=3.0, budget="1h")
    assert not any(trial.feasible for trial in found.record.trials)
    nearest = nearest_of(found.record.trials)
    assert nearest is not None
    assert nearest.id == "teacher-int8-dynamic"  # 12 of 3 ms; a is 17 times beyond the margin


def test_every_trial_is_written_at_once(tmp_path: Path) -> None:
    found = search(tmp_path, {"small": Made(1.0, 100, 949)})
    written = Record.model_validate_json((tmp_path / OPTIMIZE_JSON).read_text())
    assert written.trials == found.record.trials


def test_another_setting_must_be_clearly_faster() -> None:
    assert best_setting([timed(0.97, level="basic"), timed(1.0)]).graph_level == "all"
    assert best_setting([timed(0.90, level="basic"), timed(1.0)]).graph_level == "basic"
    assert best_setting([timed(0.5, threads=2), timed(1.0)]).threads == 2


def test_what_was_spent_before_a_resume_counts(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger(100.0, clock)
    ledger.on_stage("shape/a", "unchanged", 30.0)
    ledger.on_stage("shape/a", "unchanged", 30.0)  # asked for twice, spent once
    ledger.on_stage("students/a", "unchanged", 5.0)  # only its last part; its epochs are told below
    epochs = [EpochRecord(epoch=at, loss=1, accuracy=1, seconds=10.0) for at in range(1, 4)]
    ledger.on_training("a", ledger.now(), epochs)
    assert ledger.spent() == pytest.approx(60.0)
    began = ledger.now()
    clock.now += 10.0
    ledger.on_training("a", began, [*epochs, EpochRecord(epoch=4, loss=1, accuracy=1, seconds=10.0)])
    assert ledger.spent() == pytest.approx(70.0)
    assert not ledger.over()
    clock.now += 31.0
    assert ledger.over()
