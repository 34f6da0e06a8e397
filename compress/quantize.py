"""From the fp32 graph to fp16 and int8, on ONNX Runtime's own tools, with proof that the graph really changed."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16

from compress.export import normalisation_nodes, quiet
from compress.quantize_transformer import OUTPUT_IN_FLOAT, WEIGHTED, products_of_activations, quantize_embeddings
from serve.errors import LimbeckError
from serve.manifest import Precision
from train.inputs import Inputs

_CALIBRATION_BATCH = 32
_COMPUTE = ("Conv", "Gemm", "MatMul", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")


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
            return _dynamic(model)
        return _static(model, calibration)


def _dynamic(model: onnx.ModelProto) -> bytes:
    """Weights int8; activations are measured for each batch anew, which is why it is not batch-invariant."""
    # ONNX Runtime's ConvInteger is several times slower with signed weights; MatMulInteger is as fast with either.
    has_convolution = any(node.op_type == "Conv" for node in model.graph.node)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.onnx"
        quantize_dynamic(
            onnx.shape_inference.infer_shapes(model),
            target,
            per_channel=True,
            weight_type=QuantType.QUInt8 if has_convolution else QuantType.QInt8,
        )
        return target.read_bytes()


def _static(model: onnx.ModelProto, calibration: Inputs) -> bytes:
    """QDQ, weights int8 per channel, activations uint8 (signed ones fall back to fp32 on x86), min-max ranges.

    Of a graph with attention, only what `quantize_transformer` names.
    """
    reader = _Reader(calibration, model.graph.input[0].name)
    attention = products_of_activations(model)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.onnx"
        quantize_static(
            onnx.shape_inference.infer_shapes(model),
            target,
            reader,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=list(WEIGHTED) if attention else None,
            nodes_to_exclude=normalisation_nodes(model) + attention,
            extra_options={"OpTypesToExcludeOutputQuantization": list(OUTPUT_IN_FLOAT)} if attention else None,
        )
        if reader.read != len(calibration):  # Olive#2609: 30 of 128 samples, and nobody was told
            raise LimbeckError(f"the quantizer read {reader.read} of {len(calibration)} calibration items")
        content = target.read_bytes()
    if not attention:
        return content
    quantized: bytes = quantize_embeddings(onnx.load_from_string(content)).SerializeToString()
    return quantized


class _Reader(CalibrationDataReader):
    def __init__(self, inputs: Inputs, name: str) -> None:
        self._inputs, self._name = inputs, name
        self.read = 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        rows = np.arange(self.read, min(self.read + _CALIBRATION_BATCH, len(self._inputs)))
        self.read += len(rows)
        return {self._name: self._inputs.gather(rows)} if len(rows) else None


def describe_graph(content: bytes) -> dict[str, Any]:
    """What is in a graph: operators, how many compute nodes there are, and the share of the weights by type."""
    model = onnx.load_from_string(content)
    operators = Counter(node.op_type for node in model.graph.node)
    elements: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            elements[TensorProto.DataType.Name(tensor.data_type).lower()] += int(np.prod(tensor.dims))
    total = sum(elements.values())
    return {
        "nodes": sum(operators.values()),
        "compute_nodes": sum(operators[name] for name in _COMPUTE),
        "quantize_nodes": operators["QuantizeLinear"] + operators["DynamicQuantizeLinear"],
        "weights": {name: round(count / total, 3) for name, count in sorted(elements.items()) if count > total / 1000},
    }


def check_changed(content: bytes, precision: Precision) -> None:
    """Raise LimbeckError unless `content` really is at `precision` ("int8" that is still float: ultralytics#17158)."""
    graph = describe_graph(content)
    share = graph["weights"]
    if precision == "fp16" and share.get("float16", 0) < 0.9:
        raise LimbeckError(f"fp16 changed only {share.get('float16', 0):.0%} of the weights")
    if precision.startswith("int8"):
        changed = share.get("int8", 0) + share.get("uint8", 0)
        if changed < 0.9 or graph["quantize_nodes"] == 0:
            raise LimbeckError(f"{precision} changed only {changed:.0%} of the weights of the graph")
