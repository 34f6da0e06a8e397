"""Fit a classifier, with or without a teacher: the same path for both, on `transformers.Trainer`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from serve.errors import UserError
from train.augment import AugmentConfig
from train.augment.augmenter import text_augmenter
from train.classifier import Classifier, save_classifier
from train.distill import DistillConfig
from train.distill.lesson import Lesson
from train.inputs import Inputs, TextInputs
from train.lone_items import check_lone_items
from train.precision import Arithmetic, Wish, choose_arithmetic
from train.trainer import ClassifierTrainer
from train.views import View, WorkerError, items_of_epoch

CHECKPOINTS = "checkpoints"
_TEACHER_BATCH = 256
_SCORED_BYTES = 6 * 2**20  # 512 images of 64 x 64 pixels, 41 of 224 x 224
_STATE = "trainer_state.json"


class FitConfig(BaseModel):
    """[teacher.fit], [students.fit]: how long and how to train."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=20, ge=0)  # 0: take a model that is trained already as it is
    batch_size: int = Field(default=128, ge=1)
    accumulation: int = Field(default=1, ge=1)  # micro-batches of batch_size in one update
    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd: Nesterov momentum 0.9
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)  # not on norms and biases
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1)  # share of all updates
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip: float = Field(default=1.0, ge=0)  # largest norm of the gradient; 0: none
    patience: int | None = Field(default=None, ge=1)  # epochs without a better validation accuracy
    precision: Wish = "auto"  # bf16 where the machine multiplies it and the model is large enough; "fp16" on a GPU only
    augment: AugmentConfig = AugmentConfig()


class EpochRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    epoch: int
    loss: float  # mean over the epoch's training items
    accuracy: float  # on validation
    seconds: float


class FitResult(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: list[EpochRecord]  # none where a model was taken as it is
    best_epoch: int  # the one whose weights were kept: highest validation accuracy, the earliest of equals
    params: int
    macs: int
    precision: str = "fp32"  # of the multiplications while training
    precision_why: str = ""


@dataclass(frozen=True)
class Teaching:
    """A trained teacher, how a student learns from it, and the training split as the teacher sees it."""

    teacher: Classifier
    config: DistillConfig
    train: Inputs


OnEpoch = Callable[[EpochRecord, int], None]  # the epoch that ended, and how many there are at most


def fit(
    classifier: Classifier,
    config: FitConfig,
    train: Inputs,
    validation: Inputs,
    seed: int,
    folder: Path,
    teaching: Teaching | None = None,
    on_epoch: OnEpoch | None = None,
    say: Callable[[str], None] = lambda _: None,
    guide: Classifier | None = None,
) -> FitResult:
    """Train `classifier`, keep its best epoch on validation, and save it into `folder`.

    Checkpoints lie in `folder`/checkpoints after each epoch; a call that finds some there goes on from the last
    and ends with the same weights as one that was never interrupted. They are deleted at the end.
    `guide` is the teacher where text augmentation alone asks it: a control sees the views that its student sees.
    Raises UserError when the loss stops being a number, and where nothing is to be trained that should be.
    """
    if config.epochs == 0:
        return _as_it_is(classifier, folder)
    if config.batch_size == 1:
        check_lone_items(classifier)
    arithmetic = choose_arithmetic(config.precision, classifier, classifier.macs(), _device())
    say(f"training in {arithmetic.precision}: {arithmetic.why}")
    checkpoints = folder / CHECKPOINTS
    last = _last_checkpoint(checkpoints)
    # Without augmentation the teacher's answers are the same in every epoch. With it, it must see the same view as the
    # student ("consistent teaching", Beyer et al. 2021, arXiv 2106.05237), so it is asked for each batch.
    fixed = teaching is not None and not config.augment.is_active and not teaching.config.features
    taught = _answers(teaching) if teaching is not None and fixed else None
    lesson = None if teaching is None else Lesson(classifier, None if fixed else teaching.teacher, teaching.config)
    trainer = ClassifierTrainer(
        model=classifier,
        args=_arguments(
            config,
            arithmetic,
            train,
            items_of_epoch(len(train), config.batch_size, classifier),
            seed,
            checkpoints,
            last,
        ),
        train_dataset=View(
            train,
            config.augment,
            seed,
            taught,
            _as_the_teacher(train, teaching),
            text_augmenter(config.augment, train, teaching.teacher if teaching else guide, classifier, seed, say),
        ),
        eval_dataset=View(validation, AugmentConfig(), seed),
        callbacks=_callbacks(config, on_epoch),
        optimizer_cls_and_kwargs=_optimizer(config),
        lesson=lesson,
        label_smoothing=config.label_smoothing,
    )
    trainer.remove_callback(PrinterCallback)  # it prints each log; `on_epoch` tells them better
    try:
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    except WorkerError as error:
        raise error.told() from None
    records = epoch_records(trainer.state)
    best = _best(records)
    trainer.accelerator.unwrap_model(classifier, keep_fp32_wrapper=False)  # off with autocast: it is exported next
    if lesson is not None:
        lesson.end()
    classifier.to("cpu")
    save_classifier(classifier, folder)
    shutil.rmtree(checkpoints)
    return FitResult(
        epochs=records,
        best_epoch=best.epoch,
        params=classifier.params,
        macs=classifier.macs(),
        precision=arithmetic.precision,
        precision_why=arithmetic.why,
    )


def _as_the_teacher(train: Inputs, teaching: Teaching | None) -> Inputs | None:
    """The training split as the teacher prepares it, where that is another way than the student's."""
    if teaching is None or not isinstance(train, TextInputs) or not isinstance(teaching.train, TextInputs):
        return None
    return teaching.train if teaching.train.fingerprint() != train.fingerprint() else None


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _as_it_is(classifier: Classifier, folder: Path) -> FitResult:
    if classifier.untrained is not None:
        raise UserError(
            f"fit.epochs = 0 takes '{classifier.spec.model}' as it is, but it was never trained for these data: "
            f"{classifier.untrained}",
            "set fit.epochs to 1 or more, or name a model whose id2label in config.json is exactly the data's labels "
            "(where only the names differ, rename them there)",
        )
    save_classifier(classifier, folder)
    return FitResult(epochs=[], best_epoch=0, params=classifier.params, macs=classifier.macs())


@torch.inference_mode()
def _answers(teaching: Teaching) -> np.ndarray:
    """The teacher's logits for the whole training split: float32 [N, K]. Texts go by length, to pad little."""
    inputs = teaching.train
    order = np.arange(len(inputs)) if inputs.lengths is None else np.argsort(inputs.lengths, kind="stable")
    device = _device()
    teacher = teaching.teacher.to(device).eval()
    answers = np.empty((len(inputs), len(teacher.spec.labels)), dtype=np.float32)
    batch = _scored_together(inputs, _TEACHER_BATCH)
    for at in range(0, len(order), batch):
        rows = order[at : at + batch]
        answers[rows] = teacher(torch.from_numpy(inputs.gather(rows)).to(device)).float().cpu().numpy()
    return answers


def _scored_together(inputs: Inputs, most: int) -> int:
    """Items of a batch without gradients: fewer of large images, whose activations would fill the memory."""
    return max(16, min(most, _SCORED_BYTES // inputs.gather(np.arange(1)).nbytes))


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


def _best(records: list[EpochRecord]) -> EpochRecord:
    return max(records, key=lambda record: (record.accuracy, -record.epoch))


def _patience_is_over(config: FitConfig, state: TrainerState) -> bool:
    records = epoch_records(state)
    return config.patience is not None and records[-1].epoch - _best(records).epoch >= config.patience


def _arguments(
    config: FitConfig,
    arithmetic: Arithmetic,
    train: Inputs,
    items: int,
    seed: int,
    checkpoints: Path,
    last: Path | None,
) -> TrainingArguments:
    """Our settings in transformers' words; `items` of `train` are seen in an epoch."""
    epochs = config.epochs
    if last is not None:  # training may have ended there, and only what comes after it was cut off
        state = TrainerState.load_from_json(str(last / _STATE))
        if _patience_is_over(config, state):
            epochs = len(epoch_records(state))
    updates = -(-items // (config.batch_size * config.accumulation)) * config.epochs
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=_scored_together(train, 512),
        dataloader_num_workers=train.workers(config.batch_size),
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        lr_scheduler_type=config.schedule if config.schedule != "constant" else "constant_with_warmup",
        warmup_steps=round(config.warmup * updates),
        max_grad_norm=config.clip,
        use_cpu=_device().type == "cpu",
        bf16=arithmetic.precision == "bf16",
        fp16=arithmetic.precision == "fp16",
        seed=seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        greater_is_better=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        label_names=["labels"],
        report_to=[],
        disable_tqdm=True,
        log_level="error",
    )


def _optimizer(config: FitConfig) -> tuple[type[torch.optim.Optimizer], dict[str, object]]:
    if config.optimizer == "sgd":
        return torch.optim.SGD, {"lr": config.learning_rate, "momentum": 0.9, "nesterov": True}
    # fused: one pass over the weights, an eighth of the time for the embeddings of a text model
    return torch.optim.AdamW, {"lr": config.learning_rate, "fused": True}


def _callbacks(config: FitConfig, on_epoch: OnEpoch | None) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = []
    if config.patience is not None:
        callbacks.append(_Patience(config))
    if on_epoch is not None:
        callbacks.append(_Tell(on_epoch, config.epochs))
    return callbacks


class _Patience(TrainerCallback):
    """Ends training after `patience` epochs without a better one, counted in the log that a checkpoint keeps.

    transformers' own callback starts to count anew when training is resumed.
    """

    def __init__(self, config: FitConfig) -> None:
        self._config = config

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if _patience_is_over(self._config, state):
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


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole; broken ones are deleted.

    Trainer writes trainer_state.json last, so one that parses proves the rest. It also stores the best checkpoint as
    a path: after the run directory was moved that path leads nowhere, and starting anew is the safe answer.
    """
    found: list[tuple[int, Path]] = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            state = json.loads((checkpoint / _STATE).read_text())
            best = state["best_model_checkpoint"]
            whole = best is None or Path(best).parent.samefile(folder)
        except (OSError, ValueError, KeyError):
            whole = False
        if whole:
            found.append((int(checkpoint.name.rpartition("-")[2]), checkpoint))
        else:
            shutil.rmtree(checkpoint)
    return max(found)[1] if found else None
