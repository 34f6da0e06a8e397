"""Averaged weights: `fit.ema`. They are evaluated and kept; the optimizer goes on from those that it moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from train.shard import split, whole

_FILE = "ema.safetensors"
_UPDATES = "ema updates"  # no parameter has a space in its name


class AveragedWeights:
    """average = d * average + (1 - d) * weights after each update (Polyak & Juditsky 1992; decay d).

    d is (1 + n) / (10 + n) at update n while that is less, as in TensorFlow's ExponentialMovingAverage, so that the
    start is soon forgotten. Batch norm's statistics are averaged too, as timm does; what is no float is copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Of the parameters and buffers of `model`, on their device."""
        self._model, self._decay = model, decay
        self._updates = 0
        self._average: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are after an update."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for name, value in self._model.state_dict().items():
            if name not in self._average:
                self._average[name] = value.detach().clone()
            elif value.is_floating_point():
                self._average[name].lerp_(value, 1 - decay)
            else:
                self._average[name].copy_(value)
        self._updates += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model with the averaged weights, for a while."""
        weights = {name: value.detach().clone() for name, value in self._model.state_dict().items()}
        self.put()
        try:
            yield
        finally:
            self._model.load_state_dict(weights)

    def put(self) -> None:
        """Give the model the averaged weights; nothing happens before the first update."""
        if self._average:
            self._model.load_state_dict(self._average)

    def save(self, checkpoint: Path, writes: bool = True) -> None:
        """Into a file of the checkpoint's folder; all processes call it, of which one writes."""
        average = {name: value.cpu().contiguous() for name, value in whole(self._average).items()}
        if writes:
            save_file({**average, _UPDATES: torch.tensor(self._updates)}, checkpoint / _FILE)

    def load(self, checkpoint: Path) -> None:
        """What `save` wrote there."""
        found = load_file(checkpoint / _FILE)
        self._updates = int(found.pop(_UPDATES))
        now = self._model.state_dict()
        self._average = {name: split(value.to(now[name].device), now[name]) for name, value in found.items()}


class Average(TrainerCallback):
    """Averages after each update."""

    def __init__(self, weights: AveragedWeights) -> None:
        self._weights = weights

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._weights.update()
