"""What is in a graph, and the proof that it really changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from compress.quantize.config import is_integer
from serve.errors import LimbeckError
from serve.manifest import Precision

_COMPUTE = (
    *("Conv", "Gemm", "MatMul", "ConvInteger", "MatMulInteger"),
    *("QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat"),
)


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


def check_changed(content: bytes, precision: Precision, least: float = 0.9) -> None:
    """Raise LimbeckError unless `content` really is at `precision` ("int8" that is still float: ultralytics#17158)."""
    graph = describe_graph(content)
    share = graph["weights"]
    kinds = ("float16",) if precision == "fp16" else ("int8", "uint8", "int4")
    changed = sum(share.get(kind, 0) for kind in kinds)
    unquantized = is_integer(precision) and graph["quantize_nodes"] == 0
    if precision != "fp32" and (changed < least or changed == 0 or unquantized):
        raise LimbeckError(
            f"{precision} changed only {changed:.0%} of the weights of the graph",
            "leave it out of quantize.precisions, and please report it with the model",
        )


def transposed_weights(content: bytes, trained: Mapping[str, np.ndarray]) -> list[str]:
    """Products whose square weight is a trained one as torch keeps it, [outputs, inputs], and so lies on its side.

    `trained` are the weights by name. Of other shapes a graph would not run at all.
    """
    squares = {name: weight for name, weight in trained.items() if weight.ndim == 2 and len(set(weight.shape)) == 1}
    graph = onnx.load_from_string(content).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in constants:
            continue
        used = numpy_helper.to_array(constants[node.input[1]])
        if any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
            used = used.T
        for name, weight in squares.items():
            if used.shape == weight.shape and np.array_equal(used, weight) and not np.array_equal(weight, weight.T):
                found.append(f"the weight of node '{node.name}' is transposed ({name})")
    return found
