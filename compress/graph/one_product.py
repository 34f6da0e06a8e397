"""Queries, keys and values in one product: [Wq | Wk | Wv] instead of three.

A layer's input is then read, and for int8 quantized, once. It is what ONNX Runtime's own Attention node does first
(onnxruntime/core/optimizer/attention_fusion.cc); that node as a whole is slower on a CPU than its parts. The numbers
stay the same one by one. N texts, L tokens, H hidden, A heads of D.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from compress.graph.heads import Heads, heads_at
from compress.graph.values import Writer, nodes, permutation, read, replace, write


def join_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Products of one input that are all split into heads of one width, as one product that is split once.

    Split before the transpositions, so that ONNX Runtime can still leave these out (tokens_first.py).
    """
    graph = read(model)
    groups: dict[tuple[ir.Value, int], list[Heads]] = {}
    for node in nodes(graph, "Transpose"):
        found = heads_at(node.outputs[0])
        if found is not None:
            groups.setdefault((found.source, found.width), []).append(found)
    for group in groups.values():
        if len(group) > 1:
            _join(graph, group)
    return write(graph)


def _join(model: ir.Model, group: list[Heads]) -> None:
    first = group[0].end.producer()
    assert first is not None
    add = Writer(model, first, group[0].end.name)
    counts = [part.heads for part in group]
    product = add.one("MatMul", [group[0].source, add.constant(np.concatenate([p.weight for p in group], axis=1))])
    summed = add.one("Add", [product, add.constant(np.concatenate([part.bias for part in group]))])
    shape = add.constant(np.array([0, 0, sum(counts), group[0].width], dtype=np.int64))
    by_token = add.one("Reshape", [summed, shape])  # [N, L, A of all, D], or [L, N, A of all, D]
    pieces = add.node(
        "Split", [by_token, add.constant(np.array(counts, dtype=np.int64))], {"axis": 2}, outputs=len(group)
    )
    for part, piece in zip(group, pieces, strict=True):
        transpose = part.end.producer()
        assert transpose is not None
        replace(part.end, add.one("Transpose", [piece], {"perm": permutation(transpose)}))
