"""A fit's settings in the words of transformers' Trainer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import TrainingArguments
from transformers.trainer_callback import TrainerState

from train.checkpoints import state_of
from train.epochs import epoch_records, patience_is_over
from train.fit_config import FitConfig
from train.inputs import Inputs
from train.precision import Arithmetic
from train.processes import world

_SCORED = 512  # images
_SCORED_TEXTS = 64  # of like length: in larger batches more would be padded
_SCORED_BYTES = 6 * 2**20  # 512 images of 64 x 64 pixels, 41 of 224 x 224


def training_arguments(
    config: FitConfig,
    arithmetic: Arithmetic,
    train: Inputs,
    seed: int,
    checkpoints: Path,
    last: Path | None,
    until: int | None = None,
) -> TrainingArguments:
    """Our settings in transformers' words for `train`; `last` is the checkpoint to go on from.

    `until` is the epoch after which training is to end, where that is known and nothing is evaluated.
    """
    epochs = config.epochs
    if last is not None:  # training may have ended there, and only what comes after it was cut off
        epochs = _epochs_to_go(config, state_of(last), until)
    here = world()
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=epochs,
        per_device_train_batch_size=config.batch_size // here.size,
        per_device_eval_batch_size=scored_at_once(train),
        dataloader_num_workers=-(-train.workers(config.batch_size) // here.local_size),
        gradient_accumulation_steps=config.accumulation,
        max_grad_norm=config.clip,
        use_cpu=training_device().type == "cpu",
        bf16=arithmetic.precision == "bf16",
        fp16=arithmetic.precision == "fp16",
        seed=seed,
        eval_strategy="epoch" if until is None else "no",
        save_strategy="epoch",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        save_total_limit=2,
        load_best_model_at_end=until is None and config.keep == "best",
        metric_for_best_model="accuracy",
        greater_is_better=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        label_names=["labels"],
        # what is looked at inside the network, and learned there, is no part of what it returns: torch must not look
        # for parameters without a use in that; but layers that are not thawed yet have none
        ddp_find_unused_parameters=config.unfreeze is not None,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
    )


def _epochs_to_go(config: FitConfig, state: TrainerState, until: int | None) -> int:
    """The epochs of a training that goes on: those of the recipe, or, where it had ended, those that it had."""
    if until is not None:
        return until if round(state.epoch or 0) >= until else config.epochs
    return len(epoch_records(state)) if patience_is_over(config, state) else config.epochs


def training_device() -> torch.device:
    """A GPU where there is one; of several processes each has set its own."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def scored_at_once(inputs: Inputs) -> int:
    """Items of a batch that is evaluated."""
    return scored_together(inputs, _SCORED if inputs.lengths is None else _SCORED_TEXTS)


def scored_together(inputs: Inputs, most: int) -> int:
    """Items of a batch without gradients: fewer of large images, whose activations would fill the memory."""
    return max(16, min(most, _SCORED_BYTES // inputs.gather(np.arange(1)).nbytes))
