"""A classifier as it is trained, saved and exported: normalisation and network in one module, a spec beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from serve.errors import UserError, did_you_mean
from serve.manifest import ImagePreprocessing
from train.models import build_model, check_model

SPEC, WEIGHTS = "spec.json", "model.safetensors"


class ModelConfig(BaseModel):
    """Which network: `model` as in the design ("builtin:NAME"), `options` of that network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    options: dict[str, Any] = {}

    def checked(self) -> ModelConfig:
        """This config, or a UserError that says what is wrong with it."""
        kind, _, name = self.model.partition(":")
        if kind != "builtin":
            hint = (
                "builtin models are known, for example builtin:mlp-800x800"
                if not name
                else did_you_mean(kind, ["builtin"])
            )
            raise UserError(f"unknown kind of model in '{self.model}'", hint)
        check_model(name, self.options)
        return self


class ClassifierSpec(BaseModel):
    """All that is needed to build the module again, beside its weights. Never a pickled module."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    options: dict[str, Any]
    labels: tuple[str, ...]
    preprocessing: ImagePreprocessing
    mean: tuple[float, ...]  # per channel, of pixels scaled to 0..1
    std: tuple[float, ...]


class Classifier(nn.Module):
    """uint8 [N, H, W, C] -> logits float32 [N, K].

    The arithmetic from bytes to normalised floats is part of the module, and so of every graph exported from it:
    a server cannot get it wrong.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, spec: ClassifierSpec) -> None:
        super().__init__()
        self.spec = spec
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        # (x / 255 - mean) / std as one multiplication and one addition
        self.register_buffer("scale", (1 / (255 * std)).view(1, -1, 1, 1))
        self.register_buffer("shift", (-mean / std).view(1, -1, 1, 1))
        name = spec.model.partition(":")[2]
        self.network = build_model(name, spec.preprocessing.shape, len(spec.labels), spec.options)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.shift
        logits: torch.Tensor = self.network(pixels)
        return logits

    @property
    def params(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def macs(self) -> int:
        """Multiply-accumulates for one item, counted on the operators that run."""
        example = torch.zeros((1, *self.spec.preprocessing.shape), dtype=torch.uint8)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.eval()(example)
        return counter.get_total_flops() // 2


def new_classifier(
    config: ModelConfig, labels: tuple[str, ...], preprocessing: ImagePreprocessing, images: np.ndarray, seed: int
) -> Classifier:
    """A classifier initialised from `seed`, normalising with the statistics of `images` uint8 [N, H, W, C].

    The same config and seed give the same weights, so a student and its control start equal.
    """
    mean, std = pixel_statistics(images)
    spec = ClassifierSpec(
        model=config.model, options=config.options, labels=labels, preprocessing=preprocessing, mean=mean, std=std
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(spec)


def pixel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel of uint8 [N, H, W, C], scaled to 0..1; exact, from counts of grey levels."""
    levels = np.arange(256) / 255
    mean, std = [], []
    for channel in range(images.shape[-1]):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        average = float((counts * levels).sum() / counts.sum())
        variance = float((counts * (levels - average) ** 2).sum() / counts.sum())
        mean.append(average)
        std.append(max(variance**0.5, 1 / 255))
    return tuple(mean), tuple(std)


def save_classifier(classifier: Classifier, folder: Path) -> None:
    """Write spec.json and model.safetensors into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    (folder / SPEC).write_text(classifier.spec.model_dump_json(indent=2) + "\n")


def load_classifier(folder: Path) -> Classifier:
    """Read back what `save_classifier` wrote; in eval mode, on the CPU."""
    try:
        spec = ClassifierSpec.model_validate(json.loads((folder / SPEC).read_text()))
        state = load_file(folder / WEIGHTS)
    except OSError as error:
        raise UserError(f"no trained model in {folder}: {error.strerror}", "run the recipe again") from None
    classifier = Classifier(spec)
    classifier.load_state_dict(state)
    return classifier.eval()
