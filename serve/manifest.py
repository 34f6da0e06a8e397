"""The manifest of a model package: everything beside the graph that decides an answer."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from serve.errors import SettingError

Task = Literal["image", "text"]
# How far ONNX Runtime rewrites a graph when it loads it. "all" is its own default; fewer fusions are faster for some.
GraphLevel = Literal["off", "basic", "extended", "all"]
Precision = Literal["fp32", "fp16", "int8-dynamic", "int8-static", "int8-mixed", "int8-weights", "int4-weights"]


class ImagePreprocessing(BaseModel):
    """From image bytes to a uint8 array [height, width, channels]; mean and deviation live in the graph.

    First `resize`: "exact" to `resize_to` on both sides (to `size` without one), or "shorter-side" to it. Then
    `crop`: "center" as torchvision's CenterCrop, which rounds a half pixel to the even side, or "center-down" as
    transformers' center_crop, which rounds it down.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["image"] = "image"
    color: Literal["L", "RGB"]
    exif_orientation: bool = True
    alpha: Literal["black", "white"] = "black"
    resize: Literal["exact", "shorter-side"] = "exact"
    resize_to: Annotated[int, Field(gt=0)] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    crop: Literal["none", "center", "center-down"] = "none"
    size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]  # height, width

    @model_validator(mode="after")
    def _resize_and_crop_agree(self) -> ImagePreprocessing:
        if self.resize == "shorter-side" and self.resize_to is None:
            raise SettingError(
                "resize = 'shorter-side' says nothing of the size",
                "give resize_to, and crop = 'center' or 'center-down'",
            )
        if (self.resize_to is None) != (self.crop == "none"):
            raise SettingError("resize_to and crop go together, and one is missing", "give both, or neither")
        return self

    @property
    def channels(self) -> int:
        return 1 if self.color == "L" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one prepared image: (height, width, channels)."""
        return (*self.size, self.channels)


class TextPreprocessing(BaseModel):
    """From UTF-8 text to token ids int64 [length], by the tokenizer.json beside the graph; masks live in the graph."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["text"] = "text"
    max_length: Annotated[int, Field(gt=0)]  # tokens, special ones included
    truncation: Literal["right", "left"] = "right"  # the end at which a longer text is cut
    pad_id: Annotated[int, Field(ge=0)]  # fills up shorter texts of a batch, on the right; the graph masks it


Preprocessing = Annotated[ImagePreprocessing | TextPreprocessing, Field(discriminator="kind")]


class Manifest(BaseModel):
    """What decides an answer. `id` is the hash of all the rest, so it names exactly one behaviour."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    id: str = ""
    task: Task
    labels: tuple[str, ...] = Field(min_length=2)
    preprocessing: Preprocessing
    precision: Precision
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    # The score below which a prediction is marked as abstained; None: every prediction is given as it is.
    abstain_below: float | None = Field(default=None, ge=0, le=1)
    batch_invariant: bool
    files: dict[str, str]  # name -> sha256 of its bytes

    @model_validator(mode="after")
    def _labels_differ(self) -> Manifest:
        if len(set(self.labels)) != len(self.labels):
            raise SettingError("two labels have the same name", "give each label once")
        return self

    @model_validator(mode="after")
    def _task_and_preprocessing_agree(self) -> Manifest:
        if self.task != self.preprocessing.kind:
            raise SettingError(
                f"a task of kind {self.task!r} cannot have preprocessing of kind {self.preprocessing.kind!r}",
                "the two are always the same",
            )
        return self

    @model_serializer(mode="wrap")
    def _without_a_threshold_as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """No threshold leaves no trace: packages from before there were thresholds keep their id."""
        fields: dict[str, Any] = dump(self)
        if self.abstain_below is None:
            fields.pop("abstain_below", None)
        return fields

    def computed_id(self) -> str:
        """The first 16 hex digits of the sha256 over the canonical JSON of everything but `id`."""
        content = self.model_dump(mode="json", exclude={"id"})
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def sealed(self) -> Manifest:
        """The same manifest with its own id filled in."""
        return self.model_copy(update={"id": self.computed_id()})


class ServingConfig(BaseModel):
    """How a package is run (`serving.json`). It changes no answer but by rounding, so it is not hashed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threads: int = Field(default=1, ge=1, le=256)
    workers: int = Field(default=1, ge=1, le=256)
    graph_level: GraphLevel = "all"
    # Dynamic batching (serve/batching.py): inputs in one run of the model, and how long an idle one waits for more.
    max_batch: int = Field(default=1, ge=1, le=1024)
    max_wait_ms: float = Field(default=0, ge=0, le=1000, allow_inf_nan=False)

    @model_validator(mode="after")
    def _waiting_has_a_point(self) -> ServingConfig:
        if self.max_wait_ms > 0 and self.max_batch == 1:
            raise SettingError(
                f"max_wait_ms = {self.max_wait_ms:g}, but a batch of one waits for nobody",
                "set max_batch to 2 or more, or leave out max_wait_ms",
            )
        return self

    def unbatched(self) -> ServingConfig:
        """The same without batching, as a package needs it whose answers depend on the batch."""
        return self.model_copy(update={"max_batch": 1, "max_wait_ms": 0.0})
