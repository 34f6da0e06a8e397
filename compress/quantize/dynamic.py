"""int8-dynamic: weights int8; activations are measured for each batch anew, which is why it is not batch-invariant."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic


def quantize_dynamically(model: onnx.ModelProto) -> bytes:
    """The graph with int8 products, weights with a scale for each channel."""
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
