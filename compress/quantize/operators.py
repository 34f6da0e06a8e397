"""Static int8 of a transformer in ONNX Runtime's own operators: a product, its scales and its bias as one node.

The QDQ form leaves it to the runtime to find these. It finds the product, not the bias, which it has joined to a GELU
by then or cannot reach, and so adds it in a pass of its own. Here DequantizeLinear -> MatMul -> Add becomes one
com.microsoft.MatMulIntegerToFloat, at the same levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import NodeProto, helper

_DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class _Scaled:
    """What a DequantizeLinear reads: levels, scale, zero point, by name."""

    levels: str
    scale: str
    zero: str


def to_operators(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, a QDQ graph, with each product of a quantized activation and a quantized weight as one operator.

    Changes `model`. What is no such product stays as it is.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    scaled = {
        node.output[0]: _Scaled(*node.input[:3])
        for node in graph.node
        if node.op_type == "DequantizeLinear" and len(node.input) == 3
    }
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {entry.name for entry in graph.output}
    nodes: list[NodeProto] = []
    folded: set[str] = set()  # what the added biases gave
    for node in graph.node:
        if node.output[0] in folded:
            continue
        a, b = (scaled.get(name) for name in (*node.input, "", "")[:2])
        if node.op_type != "MatMul" or a is None or b is None or b.levels not in constants:
            nodes.append(node)
            continue
        bias = _bias(node, readers, constants, outputs, columns=constants[b.levels].dims[-1])
        inputs = [a.levels, b.levels, a.scale, b.scale, a.zero, b.zero]
        output = node.output[0]
        if bias is not None:
            add, name = bias
            inputs.append(name)
            output = add.output[0]
            folded.add(output)
        nodes.append(helper.make_node("MatMulIntegerToFloat", inputs, [output], name=node.name, domain=_DOMAIN))
    _replace(graph, nodes)
    if all(entry.domain != _DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return model


def _bias(
    product: NodeProto,
    readers: dict[str, list[NodeProto]],
    constants: dict[str, onnx.TensorProto],
    outputs: set[str],
    columns: int,
) -> tuple[NodeProto, str] | None:
    """The Add of a constant vector that alone reads the product, and that vector's name."""
    following = readers.get(product.output[0], [])
    if len(following) != 1 or following[0].op_type != "Add" or product.output[0] in outputs:
        return None
    others = [name for name in following[0].input if name != product.output[0]]
    if len(others) != 1 or others[0] not in constants:
        return None
    return (following[0], others[0]) if list(constants[others[0]].dims) == [columns] else None


def _replace(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    """Put `nodes` in the stead of the graph's, without those that nothing reads any longer."""
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    while True:
        read = {name for node in kept for name in node.input} | {entry.name for entry in graph.output}
        living = [node for node in kept if read & set(node.output)]
        if len(living) == len(kept):
            break
        kept = living
    del graph.node[:]
    graph.node.extend(kept)
    unused = [tensor for tensor in graph.initializer if tensor.name not in read]
    for tensor in unused:
        graph.initializer.remove(tensor)
