"""From the fp32 graph to each of the precisions that a recipe can name."""

from __future__ import annotations

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from compress.export import quiet
from compress.quantize.dynamic import quantize_dynamically
from compress.quantize.static import quantize_statically
from serve.manifest import Precision
from train.inputs import Inputs


def quantize(fp32: bytes, precision: Precision, calibration: Inputs) -> bytes:
    """The graph at `precision`. `calibration` is read, all of it, for static int8 only."""
    model = onnx.load_from_string(fp32)
    with quiet():
        if precision == "fp32":
            return fp32
        if precision == "fp16":
            converted: bytes = convert_float_to_float16(model, keep_io_types=True).SerializeToString()
            return converted
        if precision == "int8-dynamic":
            return quantize_dynamically(model)
        return quantize_statically(model, calibration)
