"""Reshapes with constant shapes: a dimension that keeps its place is copied (0), one other is left to infer (-1).

Exporters compute such a shape from the input's own in each call: Shape, Slice, Concat.
"""

from __future__ import annotations

import numpy as np
import onnx

from compress.graph.values import Dims, Writer, constant, dims, nodes, read, write


def fix_reshapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every Reshape whose free dimensions can be named without computing them."""
    graph = read(model)
    for node in nodes(graph, "Reshape"):
        before, after = dims(node.inputs[0]), dims(node.outputs[0])
        shape = _named(before, after) if before is not None and after is not None else None
        if shape is not None and constant(node.inputs[1]) is None:
            add = Writer(graph, node, node.outputs[0].name)
            node.replace_input_with(1, add.constant(np.array(shape, dtype=np.int64)))
            node.attributes.pop("allowzero", None)
    return write(graph)


def _named(before: Dims, after: Dims) -> list[int] | None:
    shape: list[int] = []
    for at, dim in enumerate(after):
        if isinstance(dim, int) and dim > 0:
            shape.append(dim)
        elif isinstance(dim, str) and at < len(before) and dim == before[at]:
            shape.append(0)
        elif -1 not in shape:
            shape.append(-1)
        else:
            return None
    return shape
