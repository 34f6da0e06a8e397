"""The curves of a training for TensorBoard: loss and learning rate as it goes on, and what each epoch reached."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from serve.errors import UserError
from train.epochs import epoch_records

_POINTS = 20  # of the loss in an epoch, at most


class Curves(TrainerCallback):
    """Writes into `folder`; every point lies at its update's number.

    A training that goes on after a stop hides the points behind the checkpoint that it goes on from, which it makes
    again (SessionLog.START); a new one deletes those of an earlier one.
    """

    def __init__(self, folder: Path) -> None:
        check_tensorboard()
        self._folder = folder
        self._writer: Any = None
        self._loss = torch.zeros(())
        self._updates = 0

    def note(self, loss: torch.Tensor) -> None:
        """The loss of a micro-batch, its share of the update's; with several processes, of the items of this one."""
        self._loss = self._loss.to(loss.device) + loss.detach()

    def close(self) -> None:
        """Write what is not written yet."""
        if self._writer is not None:
            self._writer.close()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if not state.is_world_process_zero:
            return
        if state.global_step == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._writer = SummaryWriter(str(self._folder), purge_step=state.global_step + 1)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._updates += 1
        in_epoch = max(1, round(state.max_steps / state.num_train_epochs))
        if self._writer is None or state.global_step % max(1, in_epoch // _POINTS):
            return
        self._writer.add_scalar("train/loss", self._loss.item() / self._updates, state.global_step)
        rate = max(group["lr"] for group in kwargs["optimizer"].param_groups)  # the head's, with fit.layer_decay
        self._writer.add_scalar("train/learning_rate", rate, state.global_step)
        self._loss, self._updates = torch.zeros(()), 0

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self._writer is None:
            return
        for record in epoch_records(state)[-1:]:
            self._writer.add_scalar("epoch/loss", record.loss, state.global_step)
            self._writer.add_scalar("epoch/validation_accuracy", record.accuracy, state.global_step)
            self._writer.add_scalar("epoch/number", record.epoch, state.global_step)
        self._writer.flush()  # kill -9 loses no epoch of which there is a checkpoint


def check_tensorboard() -> None:
    """Raise UserError where the package is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--tensorboard needs the package tensorboard, which cannot be imported: {error}",
            'pip install "limbeck[tensorboard]", or leave out --tensorboard',
        ) from None
