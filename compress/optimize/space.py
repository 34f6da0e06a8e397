"""What is searched: designs of students, drawn by Optuna's TPE with the constraints that earlier ones kept or broke."""

from __future__ import annotations

import hashlib
import itertools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.samplers import TPESampler

from compress.optimize.config import StudentSpace
from compress.recipe import Student
from serve.manifest import Task
from train.classifier import ModelConfig

_ASKED_IN_VAIN = 20  # proposals in a row that were tried before, until those that are left are taken as they come
_NAME_LENGTH = 40


@dataclass(frozen=True)
class Design:
    """One student to be tried."""

    student: Student
    params: Mapping[str, Any] = field(default_factory=dict)  # as Optuna knows it; empty for one of the recipe's own

    @property
    def name(self) -> str:
        return self.student.name


def designs_of(space: StudentSpace) -> Iterator[Design]:
    """Every design of an entry, the last choice changing fastest."""
    choices = space.choices
    for places in itertools.product(*(range(len(values)) for values in choices.values())):
        yield design(space, dict(zip(choices, places, strict=True)))


def design(space: StudentSpace, places: Mapping[str, int]) -> Design:
    """The design that takes from each list the value at its place."""
    chosen = {name: space.choices[name][at] for name, at in places.items()}
    model = chosen.get("model", space.model if isinstance(space.model, str) else space.model[0])
    options = {name: chosen.get(name, _single(value)) for name, value in space.options.items()}
    student = Student(
        name=_named(space.name, chosen),
        model=model,
        options={name: value for name, value in options.items() if value is not None},
        fit=space.fit,
        distill=space.distill,
        prune=space.prune,
        control=False,
    )
    return Design(student, {"student": space.name, **{f"{space.name}.{name}": at for name, at in places.items()}})


def samples_of(space: StudentSpace) -> Iterator[Student]:
    """Designs in which each value of each list stands once, beside the first values of the other lists."""
    first = dict.fromkeys(space.choices, 0)
    yield design(space, first).student
    for name, values in space.choices.items():
        for place in range(1, len(values)):
            yield design(space, {**first, name: place}).student


def check_space(spaces: Sequence[StudentSpace], task: Task) -> None:
    """Raise UserError for a model or option that cannot be, whatever else is chosen."""
    for space in spaces:
        for student in samples_of(space):
            ModelConfig(model=student.model, options=student.options).checked(task)


class Proposals:
    """Gives designs that were not tried, and learns from what came of them.

    Optuna's study is in memory: a search that is resumed goes through the same proposals again, and finds all that came
    of them in the cache. TPE with constraints: Watanabe & Hutter 2023, arXiv 2211.14411, as optuna 5 has it.
    """

    def __init__(self, spaces: Sequence[StudentSpace], own: Sequence[Student], seed: int, startup: int) -> None:
        self._spaces = {space.name: space for space in spaces}
        self._own = [Design(student) for student in own]
        self._tried: set[str] = set()
        self._asked: dict[str, optuna.Trial] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=startup)
            self._study = optuna.create_study(direction="minimize", sampler=sampler)

    def total(self) -> int:
        """How many designs there are."""
        return len(self._own) + sum(1 for space in self._spaces.values() for _ in designs_of(space))

    def next(self, count: int) -> list[Design]:
        """At most `count` new designs: the recipe's own first; none once all were tried."""
        found: list[Design] = []
        while len(found) < count and (one := self._next()) is not None:
            self._tried.add(_key(one.student))
            found.append(one)
        return found

    def tell(self, one: Design, aim: float, constraints: Mapping[str, float]) -> None:
        """What came of a design: the aim, less is better, and constraints that hold where they are 0 or less."""
        trial = self._asked.pop(one.name, None)
        if trial is None:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            for name, value in constraints.items():
                trial.set_constraint(name, value)
            self._study.tell(trial, aim)

    def drop(self, one: Design) -> None:
        """Nothing came of it, and nothing is to be learned from that."""
        trial = self._asked.pop(one.name, None)
        if trial is not None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def _next(self) -> Design | None:
        fresh = next((one for one in self._own if _key(one.student) not in self._tried), None)
        if fresh is not None or not self._spaces:
            return fresh
        for _ in range(_ASKED_IN_VAIN):
            trial = self._study.ask()
            drawn = self._drawn(trial)
            if _key(drawn.student) not in self._tried:
                self._asked[drawn.name] = trial
                return drawn
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        every = itertools.chain.from_iterable(designs_of(space) for space in self._spaces.values())
        left = next((one for one in every if _key(one.student) not in self._tried), None)
        if left is not None:
            self._study.enqueue_trial(dict(left.params))
            trial = self._study.ask()
            self._asked[self._drawn(trial).name] = trial
        return left

    def _drawn(self, trial: optuna.Trial) -> Design:
        space = self._spaces[trial.suggest_categorical("student", list(self._spaces))]
        places = {
            name: trial.suggest_int(f"{space.name}.{name}", 0, len(values) - 1)
            for name, values in space.choices.items()
        }
        return design(space, places)


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _key(student: Student) -> str:
    """Equal for students that would be trained alike, whatever their names."""
    return student.model_dump_json(exclude={"name", "control"})


def _named(space: str, chosen: Mapping[str, Any]) -> str:
    """The entry's name with what was chosen: layers-3-heads6."""
    parts = [space]
    for name, value in chosen.items():
        if name == "model":
            short = str(value).rpartition(":")[2].removeprefix(space).lstrip("-")
        else:
            short = f"{''.join(word[0] for word in name.split('_'))}{value}"
        parts.append(re.sub(r"[^A-Za-z0-9.]+", "", short.replace("-", ".")))
    name = "-".join(part for part in parts if part)
    if len(name) <= _NAME_LENGTH:
        return name
    return f"{name[: _NAME_LENGTH - 7].rstrip('-._')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
