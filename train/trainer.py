"""`transformers.Trainer` with our loss: labels, or labels and a teacher, on the same augmented view."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import EvalPrediction, Trainer

from serve.errors import UserError
from train.distill.lesson import Lesson
from train.losses import cross_entropy
from train.views import Batch, EpochSampler, View, as_batch, items_of_epoch


class ClassifierTrainer(Trainer):
    """Trains a `Classifier` on a `View`.

    A teacher sees the same augmented batches as the student, unless the view brings its logits.
    """

    def __init__(self, *, lesson: Lesson | None, label_smoothing: float, **arguments: Any) -> None:
        collator: Any = as_batch  # Trainer's annotation knows only item by item collation
        super().__init__(data_collator=collator, compute_metrics=_accuracy, **arguments)
        self._lesson, self._label_smoothing = lesson and lesson.to(self.args.device), label_smoothing
        # Our losses are sums divided by the items of the whole update, so Trainer must count them and not divide again.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self._epoch_started = time.perf_counter()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        logits = model(inputs["inputs"])
        total = self._loss(logits, inputs)
        loss = total / (len(inputs["labels"]) if num_items_in_batch is None else num_items_in_batch)
        if model.training and not torch.isfinite(loss):
            raise UserError(
                f"the training loss became {loss.item()} at update {self.state.global_step + 1}",
                "lower fit.learning_rate, or set fit.clip = 1.0",
            )
        return (loss, {"logits": logits}) if return_outputs else loss

    def _loss(self, logits: torch.Tensor, inputs: Batch) -> torch.Tensor:
        """The recipe's loss, summed over the batch; evaluation scores against the labels alone."""
        labels = inputs.get("targets", inputs["labels"])
        if self._lesson is None or not logits.requires_grad:
            return cross_entropy(logits, labels, self._label_smoothing)
        return self._lesson.loss(logits, self._taught(inputs), inputs["inputs"], labels, self._label_smoothing)

    def _taught(self, inputs: Batch) -> torch.Tensor:
        """The teacher's logits for this very view, asked now unless they were known in advance."""
        assert self._lesson is not None
        if "taught" in inputs:
            return inputs["taught"]
        with self.accelerator.autocast():
            return self._lesson.answers(inputs.get("teacher_inputs", inputs["inputs"]))

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> EpochSampler:
        view = self.train_dataset
        assert isinstance(view, View)
        assert self.model is not None
        batch_size = self.args.per_device_train_batch_size
        items = items_of_epoch(len(view), batch_size, self.model)
        # texts of like length go into one update, however it is cut into micro-batches
        return EpochSampler(view, self.args.seed, batch_size * self.args.gradient_accumulation_steps, items)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the training seconds of the epoch to its loss, where a checkpoint keeps them."""
        if "loss" in logs:
            logs["seconds"] = time.perf_counter() - self._epoch_started
        super().log(logs, start_time)
        if "eval_loss" in logs:
            self._epoch_started = time.perf_counter()


def _accuracy(prediction: EvalPrediction) -> dict[str, float]:
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return {"accuracy": float((logits.argmax(axis=1) == prediction.label_ids).mean())}
