"""Compute only what is looked at: where a head reads the first token alone, the last layer works on that token alone.

Keys and values need all tokens; what comes after attention (output projection, feed-forward, norms) treats each token
by itself, so taking the first token before it instead of after it gives the same numbers. That is about two thirds of
the last layer, a quarter of a student of three. N texts, L tokens, H hidden.
"""

from __future__ import annotations

import onnx
from onnx import NodeProto, TensorShapeProto, helper, numpy_helper

_EACH_BY_ITSELF = ("Add", "Sub", "Mul", "Div", "MatMul", "LayerNormalization", "Gelu", "Erf", "Tanh", "Relu", "Sigmoid")
_ZERO, _SUFFIX = "first_token_index", "_first_token"


def take_first_token_early(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function, with `Gather(x, 0, axis=1)` moved up as far as it can be; as it is where there is none."""
    shapes = _shapes(onnx.shape_inference.infer_shapes(model))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    picks = [node for node in model.graph.node if _picks_first(node, constants, shapes)]
    if len(picks) != 1:
        return model
    moved = _moved(model, picks[0], constants, shapes)
    if moved:
        _rewire(model, moved, constants)
        onnx.checker.check_model(model, full_check=True)
    return model


Shapes = dict[str, TensorShapeProto]
Constants = dict[str, onnx.TensorProto]


def _shapes(model: onnx.ModelProto) -> Shapes:
    return {info.name: info.type.tensor_type.shape for info in model.graph.value_info}


def _picks_first(node: NodeProto, constants: Constants, shapes: Shapes) -> bool:
    """Whether a node is x[:, 0] of a tensor [N, L, H] with a free L."""
    if node.op_type != "Gather" or node.input[1] not in constants or node.input[0] not in shapes:
        return False
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    index, shape = numpy_helper.to_array(constants[node.input[1]]), shapes[node.input[0]]
    return axis == 1 and index.shape == () and index == 0 and len(shape.dim) == 3 and bool(shape.dim[1].dim_param)


def _moved(model: onnx.ModelProto, pick: NodeProto, constants: Constants, shapes: Shapes) -> list[NodeProto]:
    """The nodes that need the first token only: they treat tokens alike, and all that reads them needs no more."""
    length = shapes[pick.input[0]].dim[1].dim_param
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {entry.name for entry in model.graph.output}
    moved: list[NodeProto] = []
    for node in reversed(model.graph.node):
        of_output = [reader for name in node.output for reader in readers.get(name, [])]
        if (
            of_output
            and all(reader is pick or any(reader is other for other in moved) for reader in of_output)
            and not outputs & set(node.output)
            and _treats_tokens_alike(node, length, constants, shapes)
        ):
            moved.append(node)
    return moved


def _treats_tokens_alike(node: NodeProto, length: str, constants: Constants, shapes: Shapes) -> bool:
    if node.op_type not in _EACH_BY_ITSELF:
        return False
    if node.op_type == "MatMul" and (node.input[1] not in constants or node.input[0] in constants):
        return False
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
    if node.op_type == "LayerNormalization" and axis not in (-1, 2):
        return False
    return all(_fits(name, node, length, constants, shapes) for name in node.input if name)


def _fits(name: str, node: NodeProto, length: str, constants: Constants, shapes: Shapes) -> bool:
    """A constant that is alike for all tokens, or a tensor [., L, .] to take the first token of."""
    if name in constants:
        dims = constants[name].dims
        return node.op_type in ("MatMul", "LayerNormalization") or len(dims) < 2 or dims[-2] == 1
    return name in shapes and len(shapes[name].dim) == 3 and shapes[name].dim[1].dim_param == length


def _rewire(model: onnx.ModelProto, moved: list[NodeProto], constants: Constants) -> None:
    """Put x[:, 0:1] in front of the moved nodes, wherever they read what was not moved itself."""
    made = {name for node in moved for name in node.output}
    wanted = {name for node in moved for name in node.input if name and name not in made and name not in constants}
    model.graph.initializer.append(helper.make_tensor(_ZERO, onnx.TensorProto.INT64, [1], [0]))
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if any(node is other for other in moved):
            node.input[:] = [name + _SUFFIX if name in wanted else name for name in node.input]
        nodes.append(node)
        for name in wanted & set(node.output):
            nodes.append(helper.make_node("Gather", [name, _ZERO], [name + _SUFFIX], name=name + _SUFFIX, axis=1))
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    del model.graph.value_info[:]  # the shapes that it tells are no longer true
