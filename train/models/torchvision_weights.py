"""Weights of torchvision models: by the name of their enum's entry, or from a .safetensors file. Never a pickle."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torchvision import models

from serve.errors import UserError, did_you_mean, said
from train.sources import expand

State = Mapping[str, torch.Tensor]
_PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
_SECONDS = 10.0  # without an answer from the download server
_EXTRA_HEADS = ("AuxLogits.", "aux1.", "aux2.")  # of inception_v3 and googlenet, in training only
# DenseNet's files are older than its code: norm.1 is norm1 now (torchvision/models/densenet.py)
_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..+)$")


@dataclass(frozen=True)
class ZooWeights:
    """A state and what is known of where it comes from."""

    origin: str
    state: State
    preset: Any = None  # how its images were prepared; None: as the architecture's default weights
    labels: Sequence[str] | None = None  # that its head scores, in order; None: nobody says


def check_weights(name: str, weights: str) -> None:
    """Raise UserError unless `weights` names a file or an entry that is known for the model `name`. Fetches nothing."""
    if _is_path(weights):
        _file(weights)
    else:
        _entry(name, weights)


def hash_weights(weights: str) -> list[str]:
    """The sha256 of a file of weights; none for an entry, whose own hash is checked when it is fetched."""
    if not _is_path(weights):
        return []
    with _file(weights).open("rb") as content:
        return [hashlib.file_digest(content, "sha256").hexdigest()]


def read_weights(name: str, weights: str) -> ZooWeights:
    """The weights, fetched and checked against their hash if need be. Raises UserError where they cannot be had."""
    if _is_path(weights):
        file = _file(weights)
        try:
            return ZooWeights(str(file), load_file(file))
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot read {file}: {said(error)}", "is it a safetensors file, and whole?") from None
    entry = _entry(name, weights)
    state = {_DENSENET.sub(r"\1\2", key): tensor for key, tensor in _download(name, entry).items()}
    return ZooWeights(f"{name}'s {entry.name}", state, entry.transforms(), entry.meta["categories"])


def take_weights(module: nn.Module, heads: set[str], weights: ZooWeights, labels: Sequence[str]) -> str | None:
    """Load the weights into `module`, all but a head for other labels; `heads` names its tensors.

    Gives the reason why the head is new, None where it was taken. Raises UserError, naming the tensor, for any other
    difference.
    """
    own = module.state_dict()
    state = {key: tensor for key, tensor in weights.state.items() if not key.startswith(_EXTRA_HEADS)}
    reason = _why_new(own, state, heads, weights, labels)
    if reason is not None:
        state = {key: tensor for key, tensor in state.items() if key not in heads}
    _check_same(own, state, heads if reason is not None else set(), weights.origin)
    module.load_state_dict(dict(state), strict=False)
    return reason


def _why_new(own: State, state: State, heads: set[str], weights: ZooWeights, labels: Sequence[str]) -> str | None:
    if any(key not in state for key in heads):
        return f"{weights.origin} has no classification head"
    if weights.labels is not None and list(weights.labels) != list(labels):
        return f"the head of {weights.origin} is for {len(weights.labels)} other labels"
    if any(state[key].shape != own[key].shape for key in heads):
        return f"the head of {weights.origin} is for another number of labels than {len(labels)}"
    return None


def _check_same(own: State, state: State, left_out: set[str], origin: str) -> None:
    expected = {key for key in own if key not in left_out}
    problem = next((f"has a tensor '{key}', which the model has not" for key in state if key not in expected), None)
    # files from before torch 0.4.1 lack this count, and nothing uses it here
    lacking = (key for key in sorted(expected) if key not in state and not key.endswith("num_batches_tracked"))
    problem = next((f"lacks the tensor '{key}'" for key in lacking), problem)
    for key in sorted(expected & state.keys()):
        if state[key].shape != own[key].shape:
            ours, theirs = list(own[key].shape), list(state[key].shape)
            problem = f"has the tensor '{key}' as {theirs}, the model as {ours}"
            break
    if problem:
        raise UserError(
            f"{origin} {problem}", "these weights are of another architecture, or of another image_size; name theirs"
        )


def _is_path(weights: str) -> bool:
    return "/" in weights or Path(weights).suffix.lower() in (".safetensors", *_PICKLED) or expand(weights).exists()


def _file(weights: str) -> Path:
    file = expand(weights)
    if file.suffix.lower() in _PICKLED:
        raise UserError(
            f"{file} is pickled, and reading a pickle can run code; only safetensors are read",
            "where you trust that file, convert it once: import torch, safetensors.torch as st; "
            f"st.save_file(torch.load('{file}', weights_only=True), '{file.with_suffix('.safetensors')}')",
        )
    if not file.is_file():
        raise UserError(f"no weights at {file}", "expected a .safetensors file, or a name such as DEFAULT")
    return file


def _entry(name: str, weights: str) -> Any:
    known = models.get_model_weights(name)
    if weights not in known.__members__:
        names = ["DEFAULT", *(entry.name for entry in known)]
        raise UserError(
            f"torchvision has no weights '{weights}' for {name}",
            f"{did_you_mean(weights, names)}; a file's name ends in .safetensors",
        )
    return known[weights]


def _download(name: str, entry: Any) -> State:
    try:
        with _patience(_SECONDS):
            state: State = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a hash that is wrong a RuntimeError
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
        raise UserError(
            f"the weights {entry.name} of {name} cannot be fetched from {entry.url}: {said(error)}",
            f"fetch that file where there is a network and put it at {file}; or leave options.weights out, "
            "which starts from random weights",
        ) from None
    return state


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """torch.hub opens its connection without a limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
