"""`transformers.Trainer` with our loss: labels, or labels and a teacher, on the same augmented view."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Dataset
from transformers import EvalPrediction, Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from kernels.parity import still
from serve.errors import UserError
from train.batches import SharedBatches, SharedLoader
from train.classifier import Classifier
from train.curves import Curves
from train.distill.lesson import Lesson
from train.ema import Average, AveragedWeights
from train.epochs import EpochClock
from train.fit_config import FitConfig
from train.layers import hold_still, rates
from train.losses import LabelLoss
from train.optimizers import l1_norm, new_optimizer
from train.processes import same_statistics
from train.schedules import PlateauWarmup, new_schedule, warmup_updates
from train.shard import take_whole_optimizer_states, whole
from train.traced import IDLE, ROWS, name_rows
from train.views import Batch, ByLength, EpochSampler, View, as_batch, items_of_epoch, teacher_key


class ClassifierTrainer(Trainer):
    """Trains a `Classifier` on a `View`, with the optimizer, schedule and averaging that `config` asks for.

    A teacher sees the same augmented batches as the student, unless the view brings its logits.
    """

    def __init__(
        self,
        *,
        config: FitConfig,
        label_loss: LabelLoss,
        lesson: Lesson | None,
        origins: Sequence[str] | None,
        curves: Curves | None = None,
        **arguments: Any,
    ) -> None:
        """`origins` say where each training item came from; the other `arguments` are Trainer's."""
        collator: Any = as_batch  # Trainer's annotation knows only item by item collation
        super().__init__(data_collator=collator, compute_metrics=_accuracy, **arguments)
        self._config, self._label_loss, self._origins = config, label_loss, origins
        self._lesson = lesson and lesson.to(self.args.device)
        self._freezes = config.train_layers != "all" or config.unfreeze is not None
        self._curves = curves
        assert self.model is not None
        self._sharded = any(isinstance(parameter, DTensor) for parameter in self.model.parameters())
        if self._sharded:  # accelerate must not wrap it once more, in DDP
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        if curves is not None:
            self.add_callback(curves)
        self._averaged: AveragedWeights | None = None
        if config.ema is not None:
            self._averaged = AveragedWeights(self.model, config.ema)
            self.add_callback(Average(self._averaged))
        # Our losses are sums divided by the items of the whole update, so Trainer must count them and not divide again.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self._clock = EpochClock()
        self.add_callback(self._clock)

    # -- loss ----------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        if model.training and self._freezes:  # Trainer puts all of it in training mode, again for each micro-batch
            hold_still(model)
        logits = model(inputs["inputs"])
        total = self._loss(logits, inputs)
        items = 0 if IDLE in inputs else len(inputs["labels"])
        in_update = items if num_items_in_batch is None else num_items_in_batch
        loss = total * (items > 0) / in_update
        if model.training and self._config.l1:  # each micro-batch its share, so that an update has the penalty once
            loss = loss + self._config.l1 * l1_norm(model) * items / in_update
        loss = loss * self.args.world_size  # of several processes torch takes the mean, and these are shares of a sum
        if model.training and not torch.isfinite(loss):
            raise self._no_number(loss.item(), inputs)
        return (loss, {"logits": logits}) if return_outputs else loss

    def _loss(self, logits: torch.Tensor, inputs: Batch) -> torch.Tensor:
        """The recipe's loss, summed over the batch; evaluation scores against the labels alone."""
        labels = inputs.get("targets", inputs["labels"])
        if self._lesson is None or not logits.requires_grad:
            return self._label_loss(logits, labels)
        return self._lesson.loss(logits, self._taught(inputs), inputs["inputs"], labels, self._label_loss)

    @torch.no_grad()
    def rehearse(self, items: int) -> None:
        """Compute the losses of the first `items` as an update would, for `train.fused` to judge which go by kernels.

        Nothing is learned, and no random number is drawn. Before the training alone: `model` is not wrapped yet.
        """
        if self._lesson is None:
            return
        assert isinstance(self.train_dataset, View)
        assert self.model is not None
        seen = self.train_dataset.__getitems__(list(range(items)))
        batch = {name: values.to(self.args.device) for name, values in seen.items()}
        with still(self.model), self.accelerator.autocast():
            logits = self.model(batch["inputs"])
        self._loss(logits.float().requires_grad_(), batch)

    def _no_number(self, loss: float, inputs: Batch) -> UserError:
        batch = f", on {name_rows(inputs[ROWS].tolist(), self._origins)}" if ROWS in inputs else ""
        return UserError(
            f"the training loss became {loss} at update {self.state.global_step + 1}{batch}",
            "lower fit.learning_rate, or set fit.clip = 1.0; if it is always these items, look at them",
        )

    def _taught(self, inputs: Batch) -> torch.Tensor:
        """The teachers' logits for this very view, asked now unless they were known in advance."""
        assert self._lesson is not None
        if "taught" in inputs:
            return inputs["taught"]
        with self.accelerator.autocast():
            views = [inputs.get(teacher_key(at), inputs["inputs"]) for at in range(self._lesson.asks)]
            return self._lesson.answers(*views)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | int | None:
        """The items of an update, or of a batch that is scored, in all processes."""
        items = sum(len(batch["labels"]) for batch in batch_samples if IDLE not in batch)
        if self.args.world_size == 1:
            return items
        counted: torch.Tensor = self.accelerator.gather(torch.tensor([items], device=device))
        return counted.sum()

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        loss = super().training_step(*arguments, **named)
        if self._curves is not None:
            self._curves.note(loss)
        return loss

    # -- what Trainer asks for -----------------------------------------------------------------------------------

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            assert isinstance(self.model, Classifier)
            self.optimizer = new_optimizer(self._config, self.model, rates(self._config, self.model))
            if self._sharded:
                take_whole_optimizer_states(self.optimizer)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> Any:  # Trainer takes LRScheduler and ReduceLROnPlateau, and says LambdaLR
        if self.lr_scheduler is None:
            over = optimizer or self.optimizer
            assert over is not None
            if self._config.schedule == "plateau":
                self.add_callback(PlateauWarmup(over, warmup_updates(self._config, num_training_steps)))
            schedule: Any = new_schedule(self._config, over, num_training_steps)
            self.lr_scheduler = schedule
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Of several processes each has its share; Trainer's own would fill up a last batch with items seen before."""
        args = self.args
        if args.world_size == 1:
            return super().get_train_dataloader()
        sampler = self._get_train_sampler()
        batch_size = args.per_device_train_batch_size * args.world_size
        assert isinstance(self.train_dataset, View)
        return SharedLoader(
            self.train_dataset,
            batch_sampler=SharedBatches(sampler, batch_size, args.process_index, args.world_size),
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
        )

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> EpochSampler:
        view = self.train_dataset
        assert isinstance(view, View)
        assert self.model is not None
        batch_size = self.args.per_device_train_batch_size * self.args.world_size
        items = items_of_epoch(len(view), batch_size, self.model, self.args.world_size)
        # texts of like length go into one update, however it is cut into micro-batches
        return EpochSampler(view, self.args.seed, batch_size * self.args.gradient_accumulation_steps, items)

    def _get_eval_sampler(self, eval_dataset: Dataset[Any]) -> ByLength:
        assert isinstance(eval_dataset, View)
        return ByLength(eval_dataset.inputs)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Epochs that train a part of the network are not among those of which the best is kept."""
        if round(self.state.epoch or 0) <= self._config.growing_epochs:
            return False
        best: bool = super()._determine_best_metric(metrics, trial)
        return best

    # -- averaged weights: evaluated, kept beside the others in a checkpoint, and taken of the best ----------------

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        assert self.model is not None
        with nullcontext() if self._averaged is None else self._averaged.in_place():
            same_statistics(self.model)  # of the averages too, which each process takes of its own
            return super().evaluate(*arguments, **named)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._sharded:
            self._save_whole_states(Path(output_dir))
        else:
            super()._save_optimizer_and_scheduler(output_dir)
        if self._averaged is not None:
            self._averaged.save(Path(output_dir), writes=self.args.should_save)

    def _save_whole_states(self, checkpoint: Path) -> None:
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        state = whole(self.optimizer.state_dict())
        if self.args.should_save:
            torch.save(state, checkpoint / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), checkpoint / SCHEDULER_NAME)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Whole, by the first process; all take part where the model is split."""
        if not self._sharded:
            super().save_model(output_dir, _internal_call)
            return
        assert self.model is not None
        state = whole(self.model.state_dict())
        if self.args.should_save:
            self._save(output_dir, state_dict=state)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._averaged is not None and checkpoint is not None:
            self._averaged.load(Path(checkpoint))

    def take_average(self) -> None:
        """Give the model the averaged weights as they are now, where it has any; those of the best, Trainer loads."""
        if self._averaged is not None:
            self._averaged.put()

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self._averaged is not None:
            assert self.state.best_model_checkpoint is not None
            self._averaged.load(Path(self.state.best_model_checkpoint))
            self._averaged.put()

    # -- log -----------------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the training seconds of the epoch to its loss, where a checkpoint keeps them."""
        if "loss" in logs:
            logs["seconds"] = self._clock.seconds
        super().log(logs, start_time)


def _accuracy(prediction: EvalPrediction) -> dict[str, float]:
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return {"accuracy": float((logits.argmax(axis=1) == prediction.label_ids).mean())}
