"""What is in a graph, and the proof that it really changed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from serve.errors import LimbeckError
from serve.manifest import Precision

_COMPUTE = ("Conv", "Gemm", "MatMul", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")


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
