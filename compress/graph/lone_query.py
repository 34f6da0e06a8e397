"""Attention of a layer of which one token alone is asked for: keys and values of the other tokens are never computed.

With one query for each head, q K' = q (x Wk)' = (q Wk') x' and p V = p (x Wv) = (p x) Wv: products of A rows with the
weights instead of L rows each, and no query for any other token. What the keys' bias adds to the scores of a query is
the same for all tokens, so softmax takes it away; what the values' bias adds is the bias itself, since p sums to 1.
Multi-head latent attention rearranges so (DeepSeek-V2, arXiv 2405.04434, section 2.1.2). It pays where there are more
tokens than heads.
N texts, L tokens, H hidden, A heads of D.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from compress.graph.heads import BY_HEAD, Heads, heads_at
from compress.graph.values import Writer, axis, constant, dims, made_by, nodes, permutation, read, replace, write


def ask_for_one(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each attention whose answer is read for one token only, asked for that token only."""
    graph = read(model)
    for pick in nodes(graph, "Gather"):
        found = _attention(pick)
        if found is not None:
            _rewrite(graph, pick, found)
    return write(graph)


@dataclass(frozen=True)
class _Attention:
    """softmax(scale * q K' + mask) V, of one input x [N, L, H]."""

    query: Heads
    key: Heads
    value: Heads
    scale: float
    mask: ir.Value | None  # [., 1, 1, L]


def _attention(pick: ir.Node) -> _Attention | None:
    """The attention of which a Gather [N, 1, A * D] is all that is read."""
    index, picked = constant(pick.inputs[1]), pick.inputs[0]
    if index is None or index.shape != (1,) or axis(pick, 0) != 1 or picked is None or len(list(picked.uses())) != 1:
        return None
    joined = made_by(picked, "Reshape")
    turned = made_by(joined.inputs[0], "Transpose") if joined is not None else None
    context = made_by(turned.inputs[0], "MatMul") if turned is not None and permutation(turned) == BY_HEAD else None
    softmax = made_by(context.inputs[0], "Softmax") if context is not None else None
    if context is None or softmax is None or axis(softmax, -1) not in (-1, 3):
        return None
    scores, mask = _without(softmax.inputs[0], "Add", _is_mask)
    scores, factor = _without(scores, "Mul", _is_number)
    product = made_by(scores, "MatMul")
    if product is None:
        return None
    query, key, value = heads_at(product.inputs[0]), heads_at(product.inputs[1]), heads_at(context.inputs[1])
    if query is None or key is None or value is None or query.turned or not key.turned or value.turned:
        return None
    if query.tokens_first or key.tokens_first or value.tokens_first:
        return None
    if not (query.source is key.source is value.source and query.heads == key.heads == value.heads):
        return None
    scale = constant(factor)
    return _Attention(query, key, value, 1.0 if scale is None else float(scale.reshape(())), mask)


def _without(value: ir.Value | None, op_type: str, is_it: object) -> tuple[ir.Value | None, ir.Value | None]:
    """`value` before an Add or Mul with a second operand of a kind, and that operand; as it is where there is none."""
    node = made_by(value, op_type)
    if node is not None and callable(is_it):
        for first, second in (node.inputs, tuple(node.inputs)[::-1]):
            if is_it(second):
                return first, second
    return value, None


def _is_mask(value: ir.Value | None) -> bool:
    """Alike for all heads and queries: [., 1, 1, L]."""
    shape = dims(value)
    return shape is not None and len(shape) == 4 and shape[1:3] == (1, 1)


def _is_number(value: ir.Value | None) -> bool:
    content = constant(value)
    return content is not None and content.size == 1


def _rewrite(model: ir.Model, pick: ir.Node, found: _Attention) -> None:
    add = Writer(model, pick, pick.outputs[0].name)
    x, query, key, value = found.query.source, found.query, found.key, found.value
    # 1 where a column is of a head: [1, A, A * D]
    own = add.constant(np.kron(np.eye(query.heads), np.ones((1, query.width)))[None].astype(query.weight.dtype))
    token = add.one("Gather", [x, pick.inputs[1]], {"axis": 1})  # [N, 1, H]
    asked = add.one("MatMul", [token, add.constant(query.weight * query.weight.dtype.type(found.scale))])
    asked = add.one("Add", [asked, add.constant(query.bias * query.bias.dtype.type(found.scale))])
    by_head = add.one("Mul", [asked, own])  # [N, A, A * D]
    asked = add.one("MatMul", [by_head, add.constant(key.weight.T)])  # [N, A, H]
    scores = add.one("MatMul", [asked, add.one("Transpose", [x], {"perm": (0, 2, 1)})])  # [N, A, L]
    if found.mask is not None:
        ones = add.constant(np.array([1], dtype=np.int64))
        scores = add.one("Add", [scores, add.one("Squeeze", [found.mask, ones])])
    weights = add.one("Softmax", [scores], {"axis": -1})
    seen = add.one("MatMul", [weights, x])  # [N, A, H]
    seen = add.one("Mul", [add.one("MatMul", [seen, add.constant(value.weight)]), own])  # [N, A, A * D]
    ones = add.constant(np.ones((1, 1, value.heads), dtype=value.weight.dtype))
    summed = add.one("MatMul", [ones, seen])  # which takes less than half the time of ReduceSum along this axis
    replace(pick.outputs[0], add.one("Add", [summed, add.constant(value.bias)]))  # [N, 1, A * D]
