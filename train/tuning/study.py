"""A search over a space with an injected objective: claims, samplers, pruning; several processes may share it.

A trial is claimed under a lock beside the storage, so that the number of trials holds however many processes take part.
Each process holds a lock of its own for as long as it lives; the system lets go of it also after `kill -9`, and so the
others see whose trial was abandoned. Such a trial counts for nothing and is begun anew.
"""

from __future__ import annotations

import math
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from serve.errors import UserError
from train.tuning.config import TuneConfig
from train.tuning.records import ABANDONED, ERROR, NUMBER, WORKER, TrialRecord, record_of
from train.tuning.space import Space, combinations, drawn, space_of, stored_of
from train.tuning.storage import open_study

Report = Callable[[int, float], None]  # a step (an epoch, a fold) and how good it is there; raises Pruned
Objective = Callable[[dict[str, Any], Report], float]  # the values by name; higher is better
OnTrial = Callable[[TrialRecord, list[TrialRecord]], None]  # the trial that ended, and all there are; one at a time

_LOCKS = ".workers"
_UNPRUNED_TRIALS = 5  # so many are needed for a median; optuna's default
_UNPRUNED_STEPS = 2  # the first epoch tells little


class Pruned(Exception):  # noqa: N818  # no error: the trial was ended on purpose
    """The trial does worse than half of the earlier ones at the same step."""


@dataclass(frozen=True)
class Place:
    """Where a search is: its storage, its name there, the folder of its locks."""

    storage: BaseStorage
    name: str
    folder: Path
    shown: str  # the storage in messages


class Search:
    """A study that this process takes part in. Opens or begins it. Raises UserError."""

    def __init__(self, place: Place, config: TuneConfig, seed: int, mark: str) -> None:
        self.space: Space = space_of(config.search)
        self.combinations = combinations(self.space) if config.sampler == "grid" else None
        self.total = config.trials if self.combinations is None else len(self.combinations)
        self._place, self._config, self._seed = place, config, seed
        self._folder = place.folder / _LOCKS
        self._folder.mkdir(parents=True, exist_ok=True)
        self._claims = FileLock(self._folder / "claims.lock")
        self._worker = uuid.uuid4().hex
        self._alive = FileLock(self._folder / f"{self._worker}.lock")
        with self._claims:
            self.study = open_study(place.storage, place.name, mark, pruner_of(config), place.shown)

    def records(self) -> list[TrialRecord]:
        """All trials that count, by number; abandoned ones do not."""
        begun = [trial for trial in self._counted() if NUMBER in trial.user_attrs]
        return sorted((record_of(trial, self.space) for trial in begun), key=lambda record: record.number)

    def run(self, objective: Objective, on_trial: OnTrial) -> None:
        """Try until all trials are begun. An objective that raises UserError fails its trial, not the search."""
        with self._alive:
            while (trial := self._claim()) is not None:
                self._try(trial, objective)
                with self._claims:
                    records = self.records()
                    number = trial.user_attrs[NUMBER]
                    on_trial(next(record for record in records if record.number == number), records)
        with suppress(OSError):
            Path(self._alive.lock_file).unlink(missing_ok=True)

    @contextmanager
    def alone(self) -> Iterator[list[TrialRecord]]:
        """All records, while no other process claims or ends a trial."""
        with self._claims:
            self._release_abandoned()
            yield self.records()

    def _claim(self) -> optuna.Trial | None:
        with self._claims, warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._release_abandoned()
            counted = self._counted()
            if len(counted) >= self.total:
                return None
            taken = {trial.user_attrs[NUMBER] for trial in counted}
            number = next(free for free in range(1, self.total + 1) if free not in taken)  # an abandoned one's again
            self.study.sampler = self._sampler(number, counted)
            trial = self.study.ask({name: entry.distribution for name, entry in self.space.items()})
            trial.set_user_attr(NUMBER, number)
            trial.set_user_attr(WORKER, self._worker)
        return trial

    def _try(self, trial: optuna.Trial, objective: Objective) -> None:
        values = drawn(trial.params, self.space)

        def report(step: int, value: float) -> None:
            trial.report(value, step)
            if self._config.prune and trial.should_prune():
                raise Pruned

        try:
            value = objective(values, report)
        except Pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        except UserError as error:
            self._fail(trial, error.message)
        except BaseException:
            trial.set_user_attr(ABANDONED, True)
            self.study.tell(trial, state=TrialState.FAIL)
            raise
        else:
            if math.isfinite(value):
                self.study.tell(trial, value)
            else:
                self._fail(trial, f"the value is {value}")

    def _fail(self, trial: optuna.Trial, why: str) -> None:
        trial.set_user_attr(ERROR, why)
        self.study.tell(trial, state=TrialState.FAIL)

    def _sampler(self, number: int, counted: list[FrozenTrial]) -> BaseSampler:
        """The sampler of the next trial, seeded by its number: resumed or not, the trials are the same."""
        if self.combinations is not None:
            done = [trial.params for trial in counted]
            stored = [{n: stored_of(self.space[n], v) for n, v in values.items()} for values in self.combinations]
            return PartialFixedSampler(next(values for values in stored if values not in done), RandomSampler(0))
        return sampler_of(self._config.sampler, self._seed, number)

    def _counted(self) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if not trial.user_attrs.get(ABANDONED)]

    def _release_abandoned(self) -> None:
        """Fail what dead processes left running. To be called while claims are locked."""
        for trial in self._counted():
            if trial.state == TrialState.RUNNING and self._is_dead(trial.user_attrs.get(WORKER)):
                self._mark_abandoned(trial.number)
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _mark_abandoned(self, number: int) -> None:
        storage = self._place.storage  # a study has no way to a trial that another process began
        study = storage.get_study_id_from_name(self._place.name)
        storage.set_trial_user_attr(storage.get_trial_id_from_study_id_trial_number(study, number), ABANDONED, True)

    def _is_dead(self, worker: str | None) -> bool:
        """Whether the process called `worker` is gone; one that is not of this folder is taken to be alive."""
        if worker is None:  # it died while it claimed, for nobody else can claim now
            return True
        file = self._folder / f"{worker}.lock"
        if worker == self._worker or not file.exists():
            return False
        try:
            with FileLock(file, timeout=0):
                return True
        except Timeout:
            return False


def sampler_of(name: Literal["tpe", "random", "grid"], seed: int, number: int) -> BaseSampler:
    """The sampler for the trial of this number. TPE: Bergstra et al. 2011, as optuna 5 has it."""
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    return RandomSampler(seed=own) if name == "random" else TPESampler(seed=own)


def pruner_of(config: TuneConfig) -> BasePruner:
    """Median pruning, where the search wants it."""
    return MedianPruner(_UNPRUNED_TRIALS, _UNPRUNED_STEPS) if config.prune else NopPruner()
