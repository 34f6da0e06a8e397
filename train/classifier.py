"""A classifier as it is trained, saved and exported: front layer and network in one module, a spec beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from serve.errors import UserError
from serve.manifest import ImagePreprocessing, Preprocessing, Task
from serve.preparer import TOKENIZER, Preparer, new_preparer
from train.draft import Draft, NetworkSpec, Normalisation, TakenLayers, Wanted
from train.front import Mask, Normalise
from train.models import build_network, check_model, draft_model, next_step

SPEC, WEIGHTS = "spec.json", "model.safetensors"
_EXAMPLE_TOKENS = 32


class ModelConfig(BaseModel):
    """Which network: `model` as in the design ("builtin:NAME"), `options` of that network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    options: dict[str, Any] = {}

    def checked(self, task: Task = "image") -> ModelConfig:
        """This config, or a UserError that says what is wrong with it."""
        check_model(self.model, self.options, task)
        return self


class ClassifierSpec(BaseModel):
    """All that is needed to build the module again, beside its weights. Never a pickled module."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str  # as the recipe named it
    network: NetworkSpec
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    normalisation: Normalisation | None = None  # images only


class Classifier(nn.Module):
    """Model input, uint8 [N, H, W, C] or ids int64 [N, L] -> logits float32 [N, K]."""

    def __init__(self, spec: ClassifierSpec, network: nn.Module, files: Mapping[str, bytes]) -> None:
        super().__init__()
        self.spec = spec
        self.untrained: str | None = None  # why it cannot classify yet, where it is new
        self.layers: TakenLayers | None = None  # of a student made of its teacher's, where it is new
        self.files = dict(files)  # what its package holds beside the graph: the tokenizer.json of a text model
        if isinstance(spec.preprocessing, ImagePreprocessing):
            assert spec.normalisation is not None
            self.front: nn.Module = Normalise(spec.normalisation)
        else:
            self.front = Mask(spec.preprocessing.pad_id)
        self.network = network

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(*self.front(inputs))
        return logits

    def preparer(self) -> Preparer:
        """What turns request bytes into this classifier's input."""
        return new_preparer(self.spec.preprocessing, self.files)

    def example(self, items: int) -> torch.Tensor:
        """An input of so many items, of no meaning: a black image, a text of 32 tokens."""
        spec = self.spec.preprocessing
        if isinstance(spec, ImagePreprocessing):
            return torch.zeros((items, *spec.shape), dtype=torch.uint8)
        return torch.full((items, min(_EXAMPLE_TOKENS, spec.max_length)), int(spec.pad_id == 0), dtype=torch.int64)

    @property
    def params(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def macs(self) -> int:
        """Multiply-accumulates for one `example`, counted on the operators that run."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.eval()(self.example(1))
        return counter.get_total_flops() // 2


def new_classifier(config: ModelConfig, wanted: Wanted) -> Classifier:
    """A classifier, pretrained or initialised from the wanted seed.

    The same config and seed give the same weights, so a student and its control start equal.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(wanted.seed)
        return _of_draft(draft_model(config.model, config.options, wanted), config, wanted)


def next_pruned(start: Classifier, config: ModelConfig, wanted: Wanted, step: int) -> Classifier:
    """What the next pruning step leaves of `start`, which was trained since the last one; see `train.recovery`."""
    return _of_draft(next_step(start, config.model, config.options, wanted, step), config, wanted)


def _of_draft(draft: Draft, config: ModelConfig, wanted: Wanted) -> Classifier:
    spec = ClassifierSpec(
        model=config.model,
        network=draft.network,
        labels=wanted.labels,
        preprocessing=draft.preprocessing,
        normalisation=draft.normalisation,
    )
    classifier = Classifier(spec, draft.module, draft.files)
    classifier.untrained, classifier.layers = draft.untrained, draft.layers
    return classifier


def save_classifier(classifier: Classifier, folder: Path) -> None:
    """Write spec.json, model.safetensors, and the tokenizer of a text model into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    for name, content in classifier.files.items():
        (folder / name).write_bytes(content)
    (folder / SPEC).write_text(classifier.spec.model_dump_json(indent=2) + "\n")


def load_classifier(folder: Path) -> Classifier:
    """Read back what `save_classifier` wrote; in eval mode, on the CPU."""
    spec = read_spec(folder)
    try:
        state = load_file(folder / WEIGHTS)
        text = spec.preprocessing.kind == "text"
        files = {TOKENIZER: (folder / TOKENIZER).read_bytes()} if text else {}
    except OSError as error:
        raise _nothing_in(folder, error) from None
    classifier = Classifier(spec, build_network(spec.network, spec.preprocessing, len(spec.labels)), files)
    try:
        classifier.load_state_dict(state)
    except RuntimeError as error:  # torch's words on names and shapes, the first of them in the second line
        problem = " ".join(str(error).splitlines()[1:2]).strip()
        raise UserError(
            f"{WEIGHTS} and {SPEC} in {folder} do not fit together: {problem}", "run the recipe again"
        ) from None
    return classifier.eval()


def read_spec(folder: Path) -> ClassifierSpec:
    """The spec of a saved classifier, without its weights."""
    try:
        return ClassifierSpec.model_validate_json((folder / SPEC).read_text(encoding="utf-8"))
    except OSError as error:
        raise _nothing_in(folder, error) from None


def check_saved_weights(folder: Path) -> None:
    """Raise UserError unless weights lie beside a saved classifier's spec; they are not read."""
    try:
        (folder / WEIGHTS).stat()
    except OSError as error:
        raise _nothing_in(folder, error) from None


def _nothing_in(folder: Path, error: OSError) -> UserError:
    return UserError(f"no trained model in {folder}: {error.strerror}", "run the recipe again")
