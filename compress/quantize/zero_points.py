"""Zero points of weights that are all zero, left out of the products.

Quantized by channel, symmetric weights come with a zero point for each column, and ONNX Runtime's kernel then
multiplies the sum of every row with it, column by column, if only by zero (ZeroPointB in
onnxruntime/core/mlas/lib/qgemm.h).
"""

from __future__ import annotations

import onnx
from onnx import numpy_helper

_AT = {"MatMulInteger": 3, "MatMulIntegerToFloat": 5}  # where an operator takes the zero point of its weight


def leave_out_zeros(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, changed: the same levels, of products that read no zero point where it is zero in all columns."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        at = _AT.get(node.op_type, len(node.input))
        name = node.input[at] if at < len(node.input) else ""
        if name not in constants or numpy_helper.to_array(constants[name]).any():
            continue
        node.input[at] = ""
        while not node.input[-1]:
            del node.input[-1]
    read = {name for node in model.graph.node for name in node.input} | {entry.name for entry in model.graph.output}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in read]:
        model.graph.initializer.remove(tensor)
    return model
