"""One addition less for the embeddings: what is the same for every token belongs to the table of positions.

BERT adds an embedding of the token's type, of which a classifier of single texts knows one.
"""

from __future__ import annotations

import onnx

from compress.graph.values import Writer, axis, constant, made_by, nodes, read, replace, write


def fold_token_type(model: onnx.ModelProto) -> onnx.ModelProto:
    """(words[ids] + c) + positions[at], c one row, as words[ids] + (positions + c)[at]."""
    graph = read(model)
    for outer in (*nodes(graph, "Add"), *nodes(graph, "Sum")):  # which it is where residuals were taken apart
        if len(outer.inputs) != 2:
            continue
        inner = made_by(outer.inputs[0], "Add")
        table = made_by(outer.inputs[1], "Gather")
        rows = constant(table.inputs[0]) if table is not None and axis(table, 0) == 0 else None
        if inner is None or table is None or rows is None or rows.ndim != 2:
            continue
        words, row = inner.inputs[0], constant(inner.inputs[1])
        fits = row is not None and row.size == row.shape[-1] == rows.shape[1] and made_by(words, "Gather") is not None
        if row is None or not fits or len(list(inner.outputs[0].uses())) != 1:
            continue
        add = Writer(graph, outer, outer.outputs[0].name)
        positions = add.constant((rows + row.reshape(1, -1)).astype(rows.dtype))
        taken = add.one("Gather", [positions, table.inputs[1]], {"axis": 0})
        replace(outer.outputs[0], add.one(outer.op_type, [words, taken]))
    return write(graph)
