"""A stranger's graph with our signature: uint8 `images` [N, H, W, C] or `input_ids` int64 [N, L] in, `logits` out.

What the user's code did around the graph moves into it, as in every graph that we export: the scaling of pixels, the
mask of texts, the logarithm of probabilities, the order of the labels. N items, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

from compress.onnx_model.description import OnnxDescription
from compress.onnx_model.file import opset_of
from compress.onnx_model.front import BATCH, FLOATS, INNER, dims, image_front, text_front
from compress.onnx_model.tidy import tidy
from serve.errors import UserError, said
from serve.manifest import ImagePreprocessing
from serve.predictor import OUTPUT

_OPSET = 17  # what is older is converted, since quantizers need 13
_TINY = 1e-30  # probabilities below it count as it, so that none has the logarithm of 0


def adapt(model: onnx.ModelProto, described: OnnxDescription, order: Sequence[int], origin: str) -> onnx.ModelProto:
    """The same model with our signature. `order` are for each of our labels the place of its score in the model's.

    Raises UserError for inputs or outputs that do not fit the description.
    """
    if opset_of(model) < 13:
        try:
            model = version_converter.convert_version(model, _OPSET)
        except Exception as error:  # the converter raises RuntimeError and others, by operator
            raise UserError(
                f"{origin} is of opset {opset_of(model)} and cannot be converted: {said(error)}",
                "export it with opset 18",
            ) from None
    inputs = inputs_of(model)
    free_batch(model, inputs, origin)
    inner = compose.add_prefix(model, INNER)
    tidy(inner)
    if isinstance(described.preprocessing, ImagePreprocessing):
        front = image_front(inputs, described, inner.graph, origin)
    else:
        front = text_front(inputs, described.preprocessing.pad_id, inner.graph, origin)
    back = _back(output_of(model, origin), described, order, inner.graph)
    inner.graph.ClearField("value_info")  # of shapes with a fixed batch
    nodes = [*front, *inner.graph.node, *back]
    del inner.graph.node[:]
    inner.graph.node.extend(nodes)
    return inner


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller must give."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def free_batch(model: onnx.ModelProto, inputs: list[onnx.ValueInfoProto], origin: str) -> None:
    """Let the first axis be of any length, in place. What is fixed at 1 is tried, and checked by whoever runs it.

    Exporters that fix the batch write it into the shapes of Reshapes too; 0 there means "as it was".
    Raises UserError for a batch that is fixed at more.
    """
    fixed = {value.name: dims(value)[0] for value in inputs if isinstance(dims(value)[0], int)}
    larger = {name: size for name, size in fixed.items() if size != 1}
    if larger:
        name, size = next(iter(larger.items()))
        raise UserError(
            f"{origin} takes exactly {size} items at once: the first axis of its input '{name}' is fixed",
            "export it with a dynamic batch: dynamic_shapes in torch.onnx.export, or dynamic_axes",
        )
    for value in (*inputs, *model.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = BATCH
    if fixed:
        _free_reshapes(model.graph)


def _free_reshapes(graph: onnx.GraphProto) -> None:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    freed = set()
    for node in (node for node in graph.node if node.op_type == "Reshape" and node.input[1] in constants):
        tensor = constants[node.input[1]]
        shape = numpy_helper.to_array(tensor).copy()
        if len(shape) > 1 and shape[0] == 1 and 0 not in shape:
            shape[0] = 0
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
            freed.add(node.input[1])
        if node.input[1] in freed:  # several nodes may share a shape
            node.ClearField("attribute")  # allowzero, which would take the 0 at its word


def output_of(model: onnx.ModelProto, origin: str) -> onnx.ValueInfoProto:
    """The output that scores the labels: the only one, or the one that is called logits."""
    outputs = list(model.graph.output)
    named = [value for value in outputs if value.name == OUTPUT]
    found = outputs if len(outputs) == 1 else named
    if len(found) != 1 or found[0].type.tensor_type.elem_type not in FLOATS:
        raise UserError(
            f"{origin} gives {', '.join(repr(value.name) for value in outputs)}: expected one output of float scores, "
            f"or one of them called '{OUTPUT}'",
            "export it without the others, or rename the one that scores the labels",
        )
    return found[0]


def _back(
    value: onnx.ValueInfoProto, described: OnnxDescription, order: Sequence[int], graph: onnx.GraphProto
) -> list[onnx.NodeProto]:
    """From the model's scores to logits float32 [N, K] in our order."""
    nodes = []
    if value.type.tensor_type.elem_type != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", ["?"], ["?"], name="back/cast", to=TensorProto.FLOAT))
    if described.scores == "probabilities":  # softmax gives a probability back from its logarithm
        graph.initializer.append(numpy_helper.from_array(np.array(_TINY, np.float32), "back/tiny"))
        nodes.append(helper.make_node("Max", ["?", "back/tiny"], ["?"], name="back/max"))
        nodes.append(helper.make_node("Log", ["?"], ["?"], name="back/log"))
    if list(order) != list(range(len(order))):
        graph.initializer.append(numpy_helper.from_array(np.array(order, np.int64), "back/places"))
        nodes.append(helper.make_node("Gather", ["?", "back/places"], ["?"], name="back/order", axis=1))
    if not nodes:
        nodes.append(helper.make_node("Identity", ["?"], ["?"], name="back/identity"))
    last = INNER + value.name
    for node in nodes:  # each takes what the one before gives
        node.input[0], node.output[0] = last, node.name
        last = node.output[0]
    nodes[-1].output[0] = OUTPUT
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [BATCH, len(order)]))
    return nodes
