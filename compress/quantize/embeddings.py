"""Embedding tables in int8: most of a small text model's bytes (11.7 of 17 MB in three layers of MiniLM).

N texts, L tokens, H hidden, V tokens known.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

_LEVELS = 127


def quantize_embeddings(model: onnx.ModelProto) -> onnx.ModelProto:
    """Tables float32 [V, H] that are only looked up, as int8 with a scale for each of the H columns.

    Rows are dequantized after they were taken. In the tools' own form, before it, each call would convert the table.
    Columns: some are many times larger than the others, and one scale for all would leave these few levels.
    """
    nodes: list[NodeProto] = []
    tables = _tables(model)
    for node in model.graph.node:
        nodes.append(node)
        if node.input and node.input[0] in tables:
            table, rows = node.input[0], node.output[0]
            node.input[0], node.output[0] = f"{table}_int8", f"{rows}_int8"
            scales = [f"{rows}_int8", f"{table}_scale", f"{table}_zero"]
            nodes.append(helper.make_node("DequantizeLinear", scales, [rows], name=f"{rows}_float", axis=-1))
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    for tensor in tables.values():
        model.graph.initializer.remove(tensor)
        model.graph.initializer.extend(_quantized(tensor))
    return model


def _tables(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """Weights that nothing reads but `Gather`, as the table of which it takes rows."""
    found = {tensor.name: tensor for tensor in model.graph.initializer if _is_table(tensor)}
    looked_up: set[str] = set()
    for node in model.graph.node:
        for at, name in enumerate(node.input):
            if node.op_type == "Gather" and at == 0 and _axis(node) == 0:
                looked_up.add(name)
            else:
                found.pop(name, None)
    return {name: tensor for name, tensor in found.items() if name in looked_up}


def _is_table(tensor: TensorProto) -> bool:
    return tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2


def _axis(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)


def _quantized(table: TensorProto) -> tuple[TensorProto, TensorProto, TensorProto]:
    """int8 [V, H], scales float32 [H] and zero points int8 [H], all zero."""
    weights = numpy_helper.to_array(table)
    largest = np.abs(weights).max(axis=0)
    scale = np.where(largest > 0, largest / _LEVELS, 1).astype(np.float32)
    levels = np.clip(np.round(weights / scale), -_LEVELS, _LEVELS).astype(np.int8)
    return (
        numpy_helper.from_array(levels, f"{table.name}_int8"),
        numpy_helper.from_array(scale, f"{table.name}_scale"),
        numpy_helper.from_array(np.zeros(len(scale), dtype=np.int8), f"{table.name}_zero"),
    )
