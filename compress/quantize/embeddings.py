"""Embedding tables in int8: most of a small text model's bytes (11.7 of 17 MB in three layers of MiniLM).

N texts, L tokens, H hidden, V tokens known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from compress.quantize.config import Embeddings

_LEVELS = 127


def quantize_embeddings(
    model: onnx.ModelProto, scales: Embeddings = "auto", exclude: Collection[str] = ()
) -> onnx.ModelProto:
    """Tables float32 [V, H] that are only looked up, as int8 with a scale for each column, or for each row.

    What a node named in `exclude` looks up stays as it is.

    Rows are dequantized after they were taken. In the tools' own form, before it, each call would convert the table.
    Columns ("auto"): some are many times larger than the others, and one scale for all would leave these few levels.
    """
    nodes: list[NodeProto] = []
    tables = looked_up(model, is_table, exclude)
    for node in model.graph.node:
        nodes.append(node)
        if node.input and node.input[0] in tables:
            nodes += _by_row(node) if scales == "row" else _by_column(node)
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    for tensor in tables.values():
        model.graph.initializer.remove(tensor)
        model.graph.initializer.extend(_quantized_by_row(tensor) if scales == "row" else _quantized(tensor))
    return model


def _by_column(node: NodeProto) -> list[NodeProto]:
    """Let the lookup take levels, and give what makes floats of them."""
    table, rows = node.input[0], node.output[0]
    node.input[0], node.output[0] = f"{table}_int8", f"{rows}_int8"
    scales = [f"{rows}_int8", f"{table}_scale", f"{table}_zero"]
    return [helper.make_node("DequantizeLinear", scales, [rows], name=f"{rows}_float", axis=-1)]


def _by_row(node: NodeProto) -> list[NodeProto]:
    """The same, where each row has its own scale, [V, 1], which is looked up beside it.

    `NAME_scale` is what quantizers call the scale of an activation, and the rows are one.
    """
    table, rows = node.input[0], node.output[0]
    node.input[0], node.output[0] = f"{table}_int8", f"{rows}_int8"
    levels, scales = f"{rows}_levels", f"{rows}_row_scales"
    return [
        helper.make_node("Cast", [f"{rows}_int8"], [levels], name=f"{rows}_cast", to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{table}_scale", node.input[1]], [scales], name=scales, axis=0),
        helper.make_node("Mul", [levels, scales], [rows], name=f"{rows}_float"),
    ]


def looked_up(
    model: onnx.ModelProto, wanted: Callable[[TensorProto], bool], exclude: Collection[str] = ()
) -> dict[str, TensorProto]:
    """Weights that are `wanted` and that nothing reads but `Gather`, as the table of which it takes rows.

    Nodes named in `exclude` count as other readers.
    """
    found = {tensor.name: tensor for tensor in model.graph.initializer if wanted(tensor)}
    tables: set[str] = set()
    for node in model.graph.node:
        for at, name in enumerate(node.input):
            if node.op_type == "Gather" and at == 0 and _axis(node) == 0 and node.name not in exclude:
                tables.add(name)
            else:
                found.pop(name, None)
    return {name: tensor for name, tensor in found.items() if name in tables}


def is_table(tensor: TensorProto) -> bool:
    """Whether it is float32 [V, H]."""
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


def _quantized_by_row(table: TensorProto) -> tuple[TensorProto, TensorProto]:
    """int8 [V, H] and scales float32 [V, 1]."""
    weights = numpy_helper.to_array(table)
    largest = np.abs(weights).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest / _LEVELS, 1).astype(np.float32)
    levels = np.clip(np.round(weights / scale), -_LEVELS, _LEVELS).astype(np.int8)
    return numpy_helper.from_array(levels, f"{table.name}_int8"), numpy_helper.from_array(scale, f"{table.name}_scale")
