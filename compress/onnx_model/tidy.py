"""What quantizers rely on and exporters do not promise: weights that are initializers, and a name for each node."""

from __future__ import annotations

from itertools import count

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from compress.onnx_model.file import all_nodes
from compress.onnx_model.front import FLOATS, INNER

_FOLDED = ("Transpose", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Cast")  # of a constant: it is one, too


def tidy(model: onnx.ModelProto) -> None:
    """Make initializers of Constant nodes and of weights that are only moved or cast, and name all nodes, in place.

    A product whose weight is no initializer is one of two activations to a quantizer, and stays as it is. Settings and
    searches name nodes, so that one of many without a name would stand for all of them.
    """
    _fold(model)
    _name(model.graph)


def _fold(model: onnx.ModelProto) -> None:
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {entry.name for entry in graph.output}
    kept = []
    for node in graph.node:
        tensor = None if set(node.output) & outputs else _constant(node, constants, model)
        if tensor is None:
            kept.append(NodeProto.FromString(node.SerializeToString()))
        else:
            constants[tensor.name] = tensor
            graph.initializer.append(tensor)
    if len(kept) == len(graph.node):
        return
    del graph.node[:]
    graph.node.extend(kept)
    read = {name for node in all_nodes(graph) for name in node.input} | outputs
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)


def _constant(node: NodeProto, constants: dict[str, TensorProto], model: onnx.ModelProto) -> TensorProto | None:
    """What `node` gives, where that is the same for all inputs."""
    if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
        tensor = TensorProto.FromString(node.attribute[0].t.SerializeToString())
        tensor.name = node.output[0]
        return tensor
    given = [constants[name] for name in node.input if name in constants]
    if node.op_type not in _FOLDED or len(given) != len(node.input) or given[0].data_type not in FLOATS:
        return None
    to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), TensorProto.FLOAT)
    if to not in FLOATS:
        return None
    result = helper.make_tensor_value_info(node.output[0], TensorProto.UNDEFINED, None)
    alone = helper.make_graph([node], "constant", [], [result], given)
    (value,) = ReferenceEvaluator(helper.make_model(alone, opset_imports=model.opset_import)).run(None, {})
    return numpy_helper.from_array(np.asarray(value), node.output[0])


def _name(graph: onnx.GraphProto) -> None:
    """A name of its own for each node that has none. (ONNX Runtime refuses a name that two nodes have.)"""
    taken, numbers = {node.name for node in graph.node}, count()
    for node in graph.node:
        if not node.name:
            node.name = next(name for number in numbers if (name := f"{INNER}{node.op_type}_{number}") not in taken)
