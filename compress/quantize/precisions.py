"""From the fp32 graph to each of the precisions that a recipe can name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from compress.export import quiet
from compress.quantize.config import Quantize, is_integer
from compress.quantize.dynamic import quantize_dynamically
from compress.quantize.mixed import mix
from compress.quantize.providers import reduced_range
from compress.quantize.static import Static
from compress.quantize.weights import quantize_weights
from serve.errors import UserError, did_you_mean
from serve.manifest import Precision
from train.inputs import Inputs

Say = Callable[[str], None]
_NOTHING_TO_SMOOTH = "no MatMul with a weight comes after a norm or an activation function"


@dataclass(frozen=True)
class Quantized:
    """A graph at another precision, and what is to know of how it was made."""

    model: bytes
    notes: list[str] = field(default_factory=list)  # a sentence for each choice that was not the recipe's
    trace: list[dict[str, Any]] = field(default_factory=list)  # of int8-mixed: every graph that was tried


def quantize(fp32: bytes, precision: Precision, calibration: Inputs, config: Quantize | None = None) -> bytes:
    """The graph at `precision`. `calibration` is read, all of it, where activations get fixed ranges."""
    return convert(fp32, precision, calibration, config or Quantize()).model


def convert(
    fp32: bytes, precision: Precision, calibration: Inputs, config: Quantize, say: Say = lambda _: None
) -> Quantized:
    """The graph at `precision`, with notes on how it was made, each of which `say` is told at once.

    Raises UserError for names of nodes that the graph has not.
    """
    if precision == "fp32":
        return Quantized(fp32)
    model = onnx.load_from_string(fp32)
    _check_names(model, config)
    reduce_range, why = reduced_range(config)
    notes = []
    if is_integer(precision) and (reduce_range or config.reduce_range != "auto"):
        notes.append(f"weights of {7 if reduce_range else 8} bits: {why}")
        say(notes[0])
    with quiet():
        if precision not in ("int8-static", "int8-mixed"):
            return Quantized(_plain(model, precision, config, reduce_range), notes)
        static = Static(model, calibration, config, reduce_range)
        if config.smoothing != "auto" and config.smoothing > 0 and not static.smoothed:
            notes.append(f"smoothing = {config.smoothing:g} changed nothing: {_NOTHING_TO_SMOOTH}")
            say(notes[-1])
        if precision == "int8-static":
            return Quantized(static.without(()), notes)
        mixed = mix(fp32, static, calibration, config, say)
        return Quantized(mixed.model, [*notes, *mixed.notes], mixed.trace)


def _plain(model: onnx.ModelProto, precision: Precision, config: Quantize, reduce_range: bool) -> bytes:
    """The precisions that need no calibration items."""
    if precision == "fp16":
        converted: bytes = convert_float_to_float16(model, keep_io_types=True).SerializeToString()
        return converted
    if precision == "int8-dynamic":
        return quantize_dynamically(model, config, reduce_range)
    return quantize_weights(model, config, 8 if precision == "int8-weights" else 4)


def _check_names(model: onnx.ModelProto, config: Quantize) -> None:
    names = [node.name for node in model.graph.node]
    for name in config.exclude:
        if name not in names:
            raise UserError(f"quantize.exclude: the graph has no node '{name}'", did_you_mean(name, names))
