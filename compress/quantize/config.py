"""[quantize]: which precisions are made, and how. Every setting but `precisions` stands at what was measured best."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve.errors import SettingError
from serve.manifest import Precision

Calibration = Literal["min-max", "percentile", "entropy"]
Embeddings = Literal["auto", "row", "column", "none"]
Form = Literal["auto", "qdq", "operator"]
Provider = Literal["cpu", "cuda", "tensorrt", "openvino"]

# Which settings decide what a precision is. A package is made again only where one of its own is not at its default.
_STATIC = (
    "calibration",
    "percentile",
    "smoothing",
    "form",
    "per_channel",
    "symmetric_weights",
    "symmetric_activations",
    "reduce_range",
    "embeddings",
    "exclude",
)
_DECIDES: dict[str, tuple[str, ...]] = {
    "fp32": (),
    "fp16": (),
    "int8-dynamic": ("per_channel", "symmetric_weights", "reduce_range", "embeddings", "exclude"),
    "int8-static": _STATIC,
    "int8-mixed": (*_STATIC, "mixed"),
    "int8-weights": ("per_channel", "embeddings", "exclude"),
    "int4-weights": ("block_size", "per_channel", "embeddings", "exclude"),  # weights that get 8 bits have channels too
}


def is_integer(precision: str) -> bool:
    """Whether it multiplies in int8; weight-only precisions are floats again once they are loaded."""
    return precision in ("int8-static", "int8-dynamic", "int8-mixed")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Mixed(_Table):
    """[quantize.mixed]: the search behind int8-mixed."""

    budget_seconds: float = Field(default=120.0, gt=0)  # of the search, for each model; the best so far is kept
    max_nodes: int = Field(default=6, ge=1)  # at most so many are given back to floating point
    max_slowdown: float = Field(default=1.25, ge=1)  # of int8-static's own time; what is slower is not kept


class Quantize(_Table):
    """The recipe's [quantize] table."""

    precisions: tuple[Precision, ...] = ("fp32", "int8-static")
    provider: Provider = "cpu"  # where it will run; one without int8 kernels gets fp16 in the stead of int8
    calibration: Calibration = "min-max"  # how a range comes of what an activation was on the calibration items
    percentile: float = Field(default=99.99, gt=50, le=100)  # of the values, which calibration = "percentile" covers
    smoothing: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = "auto"  # SmoothQuant's alpha; 0: none
    form: Form = "auto"
    per_channel: bool = True
    symmetric_weights: bool = True
    symmetric_activations: bool = False
    reduce_range: Literal["auto"] | bool = "auto"  # 7-bit weights; auto: where the processor lacks VNNI
    embeddings: Embeddings = "auto"
    block_size: Literal[16, 32, 64, 128] = 32  # rows that share a scale in int4-weights
    exclude: tuple[str, ...] = ()  # names of nodes that stay in floating point
    mixed: Mixed = Mixed()

    @model_validator(mode="after")
    def _starts_from_fp32(self) -> Quantize:
        if "fp32" not in self.precisions:
            raise SettingError("precisions must hold 'fp32', from which the others are made", "add 'fp32' to it")
        if twice := next((name for name in self.precisions if self.precisions.count(name) > 1), None):
            raise SettingError(f"precisions names '{twice}' twice", "name each precision once")
        return self

    @model_validator(mode="after")
    def _settings_are_used(self) -> Quantize:
        """A setting that no precision heeds is a mistake: better told now than wondered at later."""
        heeded = {name for precision in self.precisions for name in _DECIDES[precision]}
        for name in self._changed() - heeded:
            users = [f"'{precision}'" for precision, names in _DECIDES.items() if name in names]
            raise SettingError(
                f"{name} is a setting of {', '.join(users)}, and precisions names none of them",
                f"leave out {name}, or add one of them to precisions",
            )
        if "percentile" in self._changed() and self.calibration != "percentile":
            raise SettingError(
                f"percentile is a setting of calibration = 'percentile', and calibration is '{self.calibration}'",
                "set calibration = 'percentile', or leave out percentile",
            )
        if self.form == "operator" and self.provider != "cpu":
            raise SettingError(
                f"form = 'operator' runs on the CPU alone, and provider is '{self.provider}'",
                "leave out form, or set provider = 'cpu'",
            )
        if self.per_channel and not self.symmetric_weights:
            raise SettingError(
                "symmetric_weights = false needs per_channel = false: products take one zero point for all channels",
                "set per_channel = false, or leave out symmetric_weights",
            )
        return self

    def _changed(self) -> set[str]:
        """The settings beside `precisions` and `provider` that do not stand at their defaults."""
        fields = type(self).model_fields
        names = set(fields) - {"precisions", "provider"}
        return {name for name in names if getattr(self, name) != fields[name].get_default(call_default_factory=True)}

    def deciding(self, precision: Precision) -> dict[str, Any]:
        """The settings that decide what `precision` is and do not stand at their defaults, as plain JSON."""
        changed = self._changed()
        content = self.model_dump(mode="json")
        settings = {name: content[name] for name in _DECIDES[precision] if name in changed}
        if "form" in _DECIDES[precision] and self.form == "auto" and not self.operators:
            settings["form"] = "qdq"
        return settings

    @property
    def operators(self) -> bool:
        """Whether static int8 of a transformer takes ONNX Runtime's own operators, which its CPU provider alone has."""
        return self.form == "operator" or (self.form == "auto" and self.provider == "cpu")

    def least_changed(self, precision: Precision) -> float:
        """The share of a graph's weights that must not be float32 any longer: 0.9, or what the recipe leaves of it."""
        return 0.0 if precision == "int8-mixed" or self.exclude or self.embeddings == "none" else 0.9
