"""What an ONNX file does not say of a classifier, and its user must: labels, preprocessing, what its scores are.

A TOML or JSON file beside the model, `model.toml` for `model.onnx`:

    labels = ["cat", "dog"]              # in the order of the model's scores
    scores = "logits"                    # or "probabilities"

    [preprocessing]                      # images; as manifest.json has it
    kind = "image"
    color = "RGB"
    size = [224, 224]
    resize = "shorter-side"
    resize_to = 256
    crop = "center"

    [pixels]                             # what enters the graph: (pixel / 255 - mean) / std, for each channel
    layout = "NCHW"
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]

    [preprocessing]                      # or texts, with their tokenizer.json in the same folder
    kind = "text"
    max_length = 128
    pad_id = 0
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serve.errors import SettingError, UserError, did_you_mean
from serve.manifest import ImagePreprocessing, Preprocessing, TextPreprocessing
from serve.preparer import TOKENIZER
from serve.validation import first_problem

_SUFFIXES = (".toml", ".json")
_SHOWN = "docs/evidence.md shows one under 'Your own ONNX model'"
_TABLES: dict[str, type[BaseModel]] = {"image": ImagePreprocessing, "text": TextPreprocessing}


class Pixels(BaseModel):
    """How uint8 pixels enter the graph. No normalisation is mean 0, std 1; raw 0..255 is mean 0, std 1/255."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: Literal["NCHW", "NHWC"] = "NCHW"
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]


class OnnxDescription(BaseModel):
    """The model's own labels and preprocessing; see the top of this file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: tuple[str, ...] = Field(min_length=2)
    scores: Literal["logits", "probabilities"] = "logits"
    preprocessing: Preprocessing
    pixels: Pixels | None = None  # None for texts, and for a graph that takes uint8 images as they are
    tokenizer: str = TOKENIZER  # of a text model: a file in the folder of the description

    @model_validator(mode="after")
    def _parts_agree(self) -> OnnxDescription:
        if len(set(self.labels)) != len(self.labels):
            raise SettingError("two labels have the same name", "name each label once, in the order of the scores")
        if self.pixels is None:
            return self
        if not isinstance(self.preprocessing, ImagePreprocessing):
            raise SettingError("[pixels] is for images, and preprocessing.kind is 'text'", "leave out [pixels]")
        channels, color = self.preprocessing.channels, self.preprocessing.color
        for name, values in (("mean", self.pixels.mean), ("std", self.pixels.std)):
            if len(values) != channels:
                raise SettingError(
                    f"pixels.{name} has {len(values)} values, and color = '{color}' has channels: {channels}",
                    "give one value for each channel",
                )
        return self


def read_description(model: Path, description: Path | None = None) -> tuple[OnnxDescription, dict[str, bytes]]:
    """What `description` says of the ONNX file `model`, and the files that its package needs beside the graph.

    By default that is the file of the same name with .toml or .json. Raises UserError: nothing of it is ever guessed.
    """
    file = description or next((model.with_suffix(end) for end in _SUFFIXES if model.with_suffix(end).is_file()), None)
    if file is None:
        raise UserError(
            f"{model} comes without a description: labels and preprocessing cannot be seen in a graph",
            f"write {model.with_suffix('.toml')}; {_SHOWN}",
        )
    described = _parse(file)
    if isinstance(described.preprocessing, ImagePreprocessing):
        return described, {}
    tokenizer = file.parent / described.tokenizer
    if Path(described.tokenizer).name != described.tokenizer:
        raise UserError(f"{file}: tokenizer = '{described.tokenizer}' is not in its folder", "copy it there")
    try:
        return described, {TOKENIZER: tokenizer.read_bytes()}
    except OSError as error:
        raise UserError(
            f"{file} describes a model of texts, but {tokenizer} cannot be read: {error.strerror}",
            "save it with tokenizer.backend_tokenizer.save(...), or name it: tokenizer = 'FILE.json'",
        ) from None


def _parse(file: Path) -> OnnxDescription:
    try:
        text = file.read_text(encoding="utf-8")
        content: Any = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}", "expected a TOML or JSON file") from None
    except ValueError as error:
        raise UserError(f"{file} is neither TOML nor JSON, by its name: {error}", "mend the file") from None
    try:
        return OnnxDescription.model_validate(content)
    except ValidationError as error:
        raise _explain(error, file) from None


def _explain(error: ValidationError, file: Path) -> UserError:
    """The first problem as one sentence."""
    problem = first_problem(error)
    # pydantic puts the kind into the path: preprocessing.image.size
    table, *inner = (part for at, part in enumerate(problem.path or ("",)) if at != 1 or part not in _TABLES)
    where = ".".join([table, *inner])
    if problem.kind == "missing":
        return UserError(f"{file}: '{where}' is missing, and cannot be guessed", _SHOWN)
    if problem.kind == "union_tag_not_found":
        return UserError(f"{file}: {where}.kind is missing", "expected 'image' or 'text'")
    if problem.kind == "extra_forbidden":
        kind = _TABLES.get(problem.path[1], Pixels) if inner else OnnxDescription
        return UserError(f"{file}: unknown key '{where}'", did_you_mean(problem.path[-1], kind.model_fields))
    return UserError(f"{file}: {where + ': ' if where else ''}{problem.message}", problem.hint or _SHOWN)
