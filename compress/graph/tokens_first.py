"""Tokens before texts: [L, N, H] instead of [N, L, H] between the layers, so that no query, key or value is transposed.

ONNX Runtime's product of matrices can read its batch from the dimensions between the first and the last (transBatchA,
transBatchB of FusedMatMul); where a tensor [L, N, A, D] is transposed only to be multiplied by heads, it leaves the
transposition out (onnxruntime/core/optimizer/matmul_transpose_fusion.cc). With texts first it cannot.
N texts, L tokens, H hidden, A heads of D.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from compress.graph.heads import BY_HEAD, BY_HEAD_TURNED, TOKENS_FIRST, TOKENS_FIRST_TURNED, heads_at
from compress.graph.values import Dims, Writer, axis, constant, dims, made_by, nodes, permutation, read, write

_ALIKE = ("Add", "Sum", "Sub", "Mul", "Div", "MatMul", "LayerNormalization", "Gelu", "Erf", "Tanh", "Relu", "Sigmoid")
_TURNS: dict[tuple[int, ...], tuple[int, ...]] = {BY_HEAD: TOKENS_FIRST, BY_HEAD_TURNED: TOKENS_FIRST_TURNED}
_BACK = (2, 0, 1, 3)  # [N, A, L, D] to [L, N, A, D]


def put_tokens_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """From what the first attention reads on; whatever cannot work so gets its input turned back."""
    graph = read(model)
    heads = [heads_at(node.outputs[0]) for node in nodes(graph, "Transpose")]
    first = next((found for found in heads if found is not None and not found.tokens_first), None)
    shape = dims(first.source) if first is not None else None
    if first is None or shape is None or len(shape) != 3:
        return model
    _Turning(graph, first.source, shape[:2]).run()
    return write(graph)


class _Turning:
    """Walks down the graph and knows of each value whether its tokens stand first by now."""

    def __init__(self, model: ir.Model, start: ir.Value, texts_tokens: Dims) -> None:
        self._model, self._start, self._outer = model, start, texts_tokens
        self._turned: set[ir.Value] = set()
        self._back: dict[ir.Value, ir.Value] = {}

    def run(self) -> None:
        """Turn `start`, and all that follows as far as it can be."""
        order = list(self._model.graph)
        begins = self._start.producer()
        at = order.index(begins) + 1 if begins is not None else 0
        readers = [use.node for use in self._start.uses()]
        turned = Writer(self._model, order[at], f"{self._start.name}/turned").one(
            "Transpose", [self._start], {"perm": (1, 0, 2)}
        )
        for reader in readers:
            self._read(reader, self._start, turned)
        self._turned.add(turned)
        for node in order[at:]:
            if any(value in self._turned for value in node.inputs) or self._comes_back(node):
                self._follow(node)

    def _follow(self, node: ir.Node) -> None:
        if any(value.is_graph_output() for value in node.outputs) or not self._adapt(node):
            for value in {value for value in node.inputs if value in self._turned}:
                assert value is not None
                self._read(node, value, self._turned_back(value, node))

    def _adapt(self, node: ir.Node) -> bool:
        """Whether `node` now reads and gives tokens first, or takes them first and gives what it gave."""
        if node.domain:
            return False
        if node.op_type == "Reshape":
            return self._reshape(node)
        if node.op_type == "Transpose":
            return self._transpose(node)
        if node.op_type == "Gather":
            return self._gather(node)
        along = axis(node, -1) if node.op_type in ("LayerNormalization", "Split") else -1
        known = node.op_type in (*_ALIKE, "Split") and along in (-1, 2)
        if not known or any(not self._suits(node, value) for value in node.inputs if value is not None):
            return False
        self._turned.update(node.outputs)
        return True

    def _suits(self, node: ir.Node, value: ir.Value) -> bool:
        """Turned, or a constant that is the same for all tokens of all texts."""
        content = constant(value)
        if content is None or node.op_type in ("LayerNormalization", "Split"):
            return value in self._turned or content is not None
        if node.op_type == "MatMul":
            return value is node.inputs[1] and content.ndim == 2
        return content.size == 1 or content.size == content.shape[-1]

    def _reshape(self, node: ir.Node) -> bool:
        shape = dims(node.outputs[0])
        if shape is None or len(shape) < 3 or shape[:2] != self._outer:
            return False
        sizes = [size for size in shape[2:] if isinstance(size, int)]
        if len(sizes) != len(shape) - 2:
            return False
        add = Writer(self._model, node, f"{node.outputs[0].name}/turned")
        node.replace_input_with(1, add.constant(np.array([0, 0, *sizes], dtype=np.int64)))
        node.attributes.pop("allowzero", None)
        self._turned.add(node.outputs[0])
        return True

    def _transpose(self, node: ir.Node) -> bool:
        if self._comes_back(node):
            node.attributes["perm"] = ir.AttrInt64s("perm", _BACK)
            self._turned.add(node.outputs[0])
            return True
        if permutation(node) not in _TURNS:
            return False
        node.attributes["perm"] = ir.AttrInt64s("perm", _TURNS[permutation(node)])
        return True

    def _comes_back(self, node: ir.Node) -> bool:
        """A Transpose of what the heads of an attention have seen, [N, A, L, D], on its way to be joined."""
        if node.op_type != "Transpose" or permutation(node) != BY_HEAD or node.inputs[0] in self._turned:
            return False
        uses = list(node.outputs[0].uses())
        joined = dims(uses[0].node.outputs[0]) if len(uses) == 1 and uses[0].node.op_type == "Reshape" else None
        outer = dims(node.outputs[0])
        return bool(joined and outer and len(joined) == 3 and joined[:2] == self._outer == outer[:2]) and (
            made_by(node.inputs[0], "MatMul") is not None
        )

    def _gather(self, node: ir.Node) -> bool:
        """Tokens that are taken by constant places, from [L, N, H]: one gives [N, H] as before, some stay turned."""
        places = constant(node.inputs[1])
        shape = dims(node.outputs[0])
        if places is None or axis(node, 0) != 1 or node.inputs[0] not in self._turned or shape is None:
            return False
        node.attributes["axis"] = ir.AttrInt64("axis", 0)
        if places.ndim:
            self._turned.add(node.outputs[0])
        return places.ndim < 2

    def _turned_back(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """`value` with its texts first again; made once, for all that need it."""
        if value not in self._back:
            shape = (1, 0, 2, 3) if len(dims(value) or ()) == 4 else (1, 0, 2)
            writer = Writer(self._model, reader, f"{value.name}/back")
            self._back[value] = writer.one("Transpose", [value], {"perm": shape})
        return self._back[value]

    @staticmethod
    def _read(node: ir.Node, old: ir.Value, new: ir.Value) -> None:
        for at, value in enumerate(node.inputs):
            if value is old:
                node.replace_input_with(at, new)
