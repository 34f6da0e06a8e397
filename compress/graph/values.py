"""What every rewrite asks of a graph: constants, shapes, who reads what. In the terms of onnx_ir."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

from serve.errors import LimbeckError

Dims = tuple[int | str | None, ...]


def read(model: onnx.ModelProto) -> ir.Model:
    """`model` with every shape that can be inferred, by name where it is free; the proto itself stays as it is.

    ONNX's own inference loses the free dimensions at the first position embedding, ONNX Runtime's keeps them.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]  # what was true before an earlier rewrite may no longer be
    try:
        inferred = SymbolicShapeInference.infer_shapes(bare, auto_merge=True)
    except Exception:  # operators that it does not know end it, with errors of any kind
        inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    return ir.from_proto(inferred)


def write(model: ir.Model) -> onnx.ModelProto:
    """Back to a proto, without nodes and weights that nothing reads any more, and without inferred shapes."""
    RemoveUnusedNodesPass()(model)
    proto: onnx.ModelProto = ir.to_proto(model)
    del proto.graph.value_info[:]
    return proto


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The content of an initializer; None of what is computed."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    return value.const_value.numpy()


def dims(value: ir.Value | None) -> Dims | None:
    """The dimensions as far as they are known: numbers, or names of free ones; None where the rank is unknown."""
    if value is None or value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def made_by(value: ir.Value | None, op_type: str, domain: str = "") -> ir.Node | None:
    """The node that makes `value`, where it is an `op_type`."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and node.domain == domain else None


def nodes(model: ir.Model, op_type: str) -> list[ir.Node]:
    """All nodes of a kind, in topological order; a list, so that the graph may be changed meanwhile."""
    return [node for node in model.graph if node.op_type == op_type and not node.domain]


def permutation(node: ir.Node) -> tuple[int, ...]:
    """The `perm` of a Transpose; empty where it says none."""
    attribute = node.attributes.get("perm")
    return tuple(attribute.as_ints()) if attribute is not None else ()


def axis(node: ir.Node, default: int) -> int:
    """The `axis` of a node."""
    attribute = node.attributes.get("axis")
    return attribute.as_int() if attribute is not None else default


class Writer:
    """Adds nodes and constants to a graph, in front of one of its nodes, with names that begin alike."""

    def __init__(self, model: ir.Model, before: ir.Node, name: str | None) -> None:
        self._model, self._before, self._count = model, before, 0
        self._name = name or before.op_type

    def constant(self, content: np.ndarray) -> ir.Value:
        """A new weight."""
        tensor = ir.tensor(np.ascontiguousarray(content), name=self._new_name("constant"))
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(content.shape)
        value = ir.Value(name=tensor.name, type=kind, shape=shape, const_value=tensor)
        self._model.graph.register_initializer(value)
        return value

    def node(
        self,
        op_type: str,
        inputs: list[ir.Value | None],
        attributes: dict[str, int | float | tuple[int, ...]] | None = None,
        domain: str = "",
        outputs: int = 1,
    ) -> list[ir.Value]:
        """A new node; its outputs."""
        name = self._new_name(op_type)
        made = [ir.Value(name=f"{name}_{number}" if outputs > 1 else name) for number in range(outputs)]
        node = ir.node(op_type, inputs, attributes, domain=domain, outputs=made, name=name)
        self._model.graph.insert_before(self._before, [node])
        return made

    def one(
        self,
        op_type: str,
        inputs: list[ir.Value | None],
        attributes: dict[str, int | float | tuple[int, ...]] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """A new node with one output."""
        return self.node(op_type, inputs, attributes, domain)[0]

    def _new_name(self, kind: str) -> str:
        """`self._name` is that of a value that stays or goes; a number makes it new."""
        self._count += 1
        return f"{self._name}/{kind.lower()}_{self._count}"


def replace(old: ir.Value, new: ir.Value) -> None:
    """Let all that reads `old` read `new`. Raises LimbeckError of an output of the graph, whose name must stay."""
    if old.is_graph_output():
        raise LimbeckError(f"a rewrite would rename the graph's output {old.name!r}", "please report it with the model")
    ir.convenience.replace_all_uses_with(old, new)
