"""The epochs of a training: their record, which is the best, when patience is over, and who is told."""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from train.fit_config import FitConfig


class EpochRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    epoch: int
    loss: float  # mean over the epoch's training items
    accuracy: float  # on validation
    seconds: float  # of its training and evaluation


OnEpoch = Callable[[EpochRecord, int], None]  # the epoch that ended, and how many there are at most
Pause = Callable[[EpochRecord], bool]  # whether to pause after this epoch, once its checkpoint is written


class Paused(Exception):  # noqa: N818  # no error: training goes on from its checkpoint when it is asked for again
    """A training was left after some of its epochs, `records`."""

    def __init__(self, records: list[EpochRecord]) -> None:
        super().__init__(f"paused after epoch {records[-1].epoch}")
        self.records = records


def epoch_records(state: TrainerState) -> list[EpochRecord]:
    """The epochs so far, from the log that Trainer keeps in each checkpoint (so a resumed run has them all)."""
    losses = {round(entry["epoch"]): entry for entry in state.log_history if "loss" in entry}
    accuracies = {round(entry["epoch"]): entry for entry in state.log_history if "eval_accuracy" in entry}
    return [
        EpochRecord(
            epoch=epoch,
            loss=losses[epoch]["loss"],
            accuracy=accuracies[epoch]["eval_accuracy"],
            seconds=round(losses[epoch]["seconds"] + accuracies[epoch]["eval_runtime"], 3),
        )
        for epoch in sorted(losses.keys() & accuracies.keys())
    ]


def best_of(records: list[EpochRecord]) -> EpochRecord:
    """The epoch of the highest validation accuracy, the earliest of equals."""
    return max(records, key=lambda record: (record.accuracy, -record.epoch))


def patience_is_over(config: FitConfig, state: TrainerState) -> bool:
    """Whether the last epoch that gained more than `config.threshold` lies `config.patience` epochs back.

    A gain is over the last one that counted, so that many small steps upwards are worth a large one. Epochs in which
    the network or its images still grow do not count: training would end before they are whole.
    """
    if config.patience is None:
        return False
    records = [record for record in epoch_records(state) if record.epoch > config.small_epochs]
    if not records:
        return False
    gained = records[0]
    for record in records[1:]:
        if record.accuracy > gained.accuracy + config.threshold:
            gained = record
    return records[-1].epoch - gained.epoch >= config.patience


def idle_patience(config: FitConfig) -> str | None:
    """What to say of a patience that cannot end the training before its last epoch; None of any other.

    It is no mistake that does harm: a recipe with `patience` may be tried with fewer epochs.
    """
    judged = config.epochs - config.small_epochs
    if config.patience is None or config.patience + 1 < judged:
        return None
    least = config.epochs + 1  # with stack as many epochs are small in a longer training; with grow_images a share
    while least - config.model_copy(update={"epochs": least}).small_epochs < config.patience + 2:
        least += 1
    return (
        f"fit.patience = {config.patience} cannot end a training of {config.epochs} epochs early: {least} epochs or "
        "more could be"
    )


def epoch_callbacks(config: FitConfig, on_epoch: OnEpoch | None) -> list[TrainerCallback]:
    """What happens after the evaluation of an epoch."""
    callbacks: list[TrainerCallback] = []
    if config.patience is not None:
        callbacks.append(_Patience(config))
    if on_epoch is not None:
        callbacks.append(_Tell(on_epoch, config.epochs))
    return callbacks


class PauseWhenSaved(TrainerCallback):
    """Leaves a training that is not at its end yet. Another call goes on as if it had never been left."""

    def __init__(self, config: FitConfig, pause: Pause) -> None:
        self._config, self._pause = config, pause

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        records = epoch_records(state)
        ends = control.should_training_stop or len(records) >= self._config.epochs
        if records and not ends and self._pause(records[-1]):
            raise Paused(records)


class EpochClock(TrainerCallback):
    """How long an epoch has been going on. What comes before it, such as Trainer's own preparations, does not count."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._began = time.perf_counter()


class Until(TrainerCallback):
    """Ends training after an epoch that is known in advance, and tells each epoch's loss: there is no validation."""

    def __init__(self, epoch: int, say: Callable[[str], None]) -> None:
        self._epoch, self._say = epoch, say

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if round(state.epoch or 0) >= self._epoch:
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        if logs is not None and "loss" in logs:
            seconds = logs["seconds"]
            self._say(f"refit, epoch {round(state.epoch or 0)}/{self._epoch}  loss {logs['loss']:.4f}  {seconds:.1f} s")


class _Patience(TrainerCallback):
    """Ends training after `patience` epochs without a better one, counted in the log that a checkpoint keeps.

    transformers' own callback starts to count anew when training is resumed.
    """

    def __init__(self, config: FitConfig) -> None:
        self._config = config

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if patience_is_over(self._config, state):
            control.should_training_stop = True


class _Tell(TrainerCallback):
    """Reports each epoch after its evaluation."""

    def __init__(self, on_epoch: OnEpoch, epochs: int) -> None:
        self._on_epoch, self._epochs = on_epoch, epochs

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if records := epoch_records(state):
            self._on_epoch(records[-1], self._epochs)
