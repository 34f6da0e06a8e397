"""The learning rate over a training: `fit.schedule`.

Updates count from 0. The warm-up is the first `fit.warmup` of all updates, in which the rate rises from 0 in a line.
"""

from __future__ import annotations

from functools import partial
from typing import Any, SupportsFloat

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau
from transformers import TrainerCallback, TrainingArguments, get_scheduler
from transformers.trainer_callback import TrainerControl, TrainerState

from train.fit_config import FitConfig

_OF_TRANSFORMERS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_CYCLED_MOMENTUM = ("adam", "adamw", "sgd")


def new_schedule(config: FitConfig, optimizer: torch.optim.Optimizer, updates: int) -> LRScheduler | ReduceLROnPlateau:
    """The schedule that `config` names, over `updates` in `config.epochs` epochs.

    Trainer steps it after each update; the one for a plateau after each evaluation, with the accuracy.
    """
    warmup = warmup_updates(config, updates)
    if config.schedule == "plateau":
        return _plateau(config, optimizer)
    if config.schedule == "one-cycle":
        return _one_cycle(config, optimizer, updates)
    if config.schedule == "step":
        every = config.step_every * max(1, updates // max(config.epochs, 1))
        return LambdaLR(optimizer, partial(_step, warmup=warmup, every=every, factor=config.step_factor))
    if config.schedule == "polynomial":
        return LambdaLR(optimizer, partial(_polynomial, warmup=warmup, updates=updates, power=config.power))
    name = _OF_TRANSFORMERS[config.schedule]
    return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=updates)


def warmup_updates(config: FitConfig, updates: int) -> int:
    """How many of all `updates` are the warm-up."""
    return round(config.warmup * updates)


def _step(update: int, warmup: int, every: int, factor: float) -> float:
    """Share of the learning rate: times `factor` after each `every` updates (He et al. 2015, arXiv 1512.03385)."""
    return min(1.0, update / max(1, warmup)) * factor ** (update // every)


def _polynomial(update: int, warmup: int, updates: int, power: float) -> float:
    """Share of the learning rate: what is left of the updates, to the `power` (DeepLab, arXiv 1606.00915, 4.1)."""
    if update < warmup:
        return update / warmup
    return float(max(0.0, (updates - update) / max(1, updates - warmup)) ** power)


def _one_cycle(config: FitConfig, optimizer: torch.optim.Optimizer, updates: int) -> OneCycleLR:
    """Up to the learning rate during the warm-up, then down to a 250,000th (Smith & Topin 2017, arXiv 1708.07120).

    As torch has it: from a 25th of the rate, along cosines; momentum goes the other way, between 0.95 and 0.85.
    """
    rising = warmup_updates(config, updates)
    return OneCycleLR(
        optimizer,
        max_lr=[float(group["lr"]) for group in optimizer.param_groups],
        total_steps=updates,
        pct_start=rising / updates if rising > 1 else 0.0,  # of a rise over one update torch makes 0 / 0
        cycle_momentum=config.optimizer in _CYCLED_MOMENTUM,
    )


def _plateau(config: FitConfig, optimizer: torch.optim.Optimizer) -> ReduceLROnPlateau:
    """Times `step_factor` after `step_every` epochs whose validation accuracy gained no more than `threshold`.

    Epochs of a part of the network, or of smaller images, do not count, as they do not for `fit.patience`: what grows
    may be worse at first.
    """
    return _PlateauOnceGrown(
        config.small_epochs,
        optimizer,
        mode="max",
        factor=config.step_factor,
        patience=config.step_every - 1,
        threshold=config.threshold,
        threshold_mode="abs",
        eps=0.0,
    )


class _PlateauOnceGrown(ReduceLROnPlateau):
    """A plateau's schedule that is told of each epoch, and does not count those in which something still grows."""

    def __init__(self, growing: int, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._growing = growing

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]  # as torch has it
        if self.last_epoch < self._growing:
            self.last_epoch += 1  # a checkpoint has it, so a resumed training goes on counting there
        else:
            super().step(metrics, epoch)


class PlateauWarmup(TrainerCallback):
    """The warm-up of the schedule for a plateau, which knows of no updates.

    The rate is a function of the update's number alone, so a resumed training has the same.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, warmup: int) -> None:
        """`optimizer` is a new one: its learning rates are those to warm up to."""
        self._optimizer, self._warmup = optimizer, warmup
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self._warmup and state.global_step <= self._warmup:  # without one the rate is as it is from the start
            share = state.global_step / self._warmup
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * share
