"""SmoothQuant (Xiao et al. 2022, arXiv 2211.10438): columns that are far larger than the others take fewer levels.

Before a product X W, column j of X is divided by s_j and row j of W multiplied by it, with
s_j = max|X_j|^alpha / max|W_j|^(1 - alpha): what is hard to quantize in the activation goes into the weight, where each
output channel has a scale of its own. The division folds into the LayerNormalization before, where only such products
read it; elsewhere (BERT adds the same tensor to a later one) it costs one Mul. Smoothed is what norms and activation
functions give, where such columns come from; what attention gives is an average of values, and not worth a Mul.

H columns of X and rows of W, M columns of W.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from compress.quantize.calibration import watch
from train.inputs import Inputs

_SMALLEST = 1e-5
_LAYOUT = ("Transpose", "Reshape", "Gather", "Squeeze", "Unsqueeze", "Identity")  # these move numbers and change none
_UNEVEN = ("LayerNormalization", "Gelu", "Relu", "Tanh", "Sigmoid", "Erf")


def smooth(model: onnx.ModelProto, calibration: Inputs, alpha: float) -> onnx.ModelProto:
    """A graph that computes the same, with activations that are easier to quantize; `alpha` is from 0 to 1.

    `model` itself where no product with a weight comes after a norm or an activation function.
    """
    smoothed = onnx.ModelProto()
    smoothed.CopyFrom(model)
    groups = _groups(smoothed)
    if not groups:
        return model
    largest: dict[str, np.ndarray] = {}

    def take(values: dict[str, np.ndarray]) -> None:
        for name, value in values.items():
            columns = np.abs(value.reshape(-1, value.shape[-1])).max(axis=0)
            largest[name] = np.maximum(largest.get(name, 0), columns)

    watch(model, list(groups), calibration, take)
    constants = {tensor.name: tensor for tensor in smoothed.graph.initializer}
    for activation, products in groups.items():
        weights = [numpy_helper.to_array(constants[node.input[1]]) for node in products]
        rows = np.maximum.reduce([np.abs(weight).max(axis=1) for weight in weights])
        scale = np.maximum(largest[activation], _SMALLEST) ** alpha / np.maximum(rows, _SMALLEST) ** (1 - alpha)
        scale = np.maximum(scale / np.exp(np.log(scale).mean()), _SMALLEST).astype(np.float32)  # [H], around 1
        for node, weight in zip(products, weights, strict=True):
            name = f"{node.input[1]}_smoothed_{node.name}"
            smoothed.graph.initializer.append(numpy_helper.from_array(weight * scale[:, None], name))
            node.input[1] = name
        if not _fold(smoothed, constants, activation, products, scale):
            _divide(smoothed, activation, products, scale)
    _drop_unused(smoothed)
    return smoothed


def _groups(model: onnx.ModelProto) -> dict[str, list[NodeProto]]:
    """Each activation that is worth it and that products with weights read, with these products."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    groups: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is None or len(weight.dims) != 2 or weight.data_type != TensorProto.FLOAT:
            continue
        if _uneven(node.input[0], makers, constants):
            groups.setdefault(node.input[0], []).append(node)
    return groups


def _uneven(name: str, makers: dict[str, NodeProto], constants: dict[str, TensorProto]) -> bool:
    """Whether a norm or an activation function makes it; one that is written out ends in a Mul of two activations."""
    node = makers.get(name)
    while node is not None and node.op_type in _LAYOUT:
        node = makers.get(node.input[0])
    if node is None:
        return False
    return node.op_type in _UNEVEN or (node.op_type == "Mul" and not set(node.input) & set(constants))


def _fold(
    model: onnx.ModelProto,
    constants: dict[str, TensorProto],
    activation: str,
    products: list[NodeProto],
    scale: np.ndarray,
) -> bool:
    """Whether the norm that makes `activation` could be scaled: where nothing but the products reads it."""
    norm = next((node for node in model.graph.node if activation in node.output), None)
    if norm is None or norm.op_type != "LayerNormalization" or not set(norm.input[1:]) <= set(constants):
        return False
    readers = [node for node in model.graph.node if activation in node.input]
    if len(readers) != len(products) or any(activation == entry.name for entry in model.graph.output):
        return False
    for at in range(1, len(norm.input)):  # scale, and bias where there is one
        values = numpy_helper.to_array(constants[norm.input[at]])
        name = f"{norm.input[at]}_smoothed_{norm.name}"
        model.graph.initializer.append(numpy_helper.from_array((values / scale).astype(np.float32), name))
        norm.input[at] = name
    return True


def _divide(model: onnx.ModelProto, activation: str, products: list[NodeProto], scale: np.ndarray) -> None:
    """One Mul between `activation` and the products that read it."""
    by, divided = f"{activation}_smoothing", f"{activation}_smoothed"
    model.graph.initializer.append(numpy_helper.from_array(1 / scale, by))
    for node in products:
        node.input[0] = divided
    reading = {node.output[0] for node in products}
    at = min(index for index, node in enumerate(model.graph.node) if reading & set(node.output))
    model.graph.node.insert(at, helper.make_node("Mul", [activation, by], [divided], name=divided))


def _drop_unused(model: onnx.ModelProto) -> None:
    read = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in read]:
        model.graph.initializer.remove(tensor)
