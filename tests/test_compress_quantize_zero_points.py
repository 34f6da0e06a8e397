"""Zero points of weights: left out where they are all zero, which changes no answer, and kept where they are not."""

from __future__ import annotations

import graphs
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compress.quantize.config import Quantize
from compress.quantize.dynamic import quantize_dynamically
from compress.quantize.static import Static
from compress.quantize.zero_points import leave_out_zeros
from serve.predictor import OUTPUT, open_session

ITEMS = graphs.ids()
MODEL = graphs.transformer()
PLACES = {"MatMulInteger": 3, "MatMulIntegerToFloat": 5}


def zero_points(model: bytes) -> list[str]:
    """Of the weight, for each int8 product: a name, or nothing."""
    found = [node for node in onnx.load_from_string(model).graph.node if node.op_type in PLACES]
    places = [PLACES[node.op_type] for node in found]
    return [node.input[at] if at < len(node.input) else "" for node, at in zip(found, places, strict=True)]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("precision", ["int8-dynamic", "int8-static"])
def test_products_read_no_zero_point_where_all_are_zero(precision: str, symmetric: bool) -> None:
    settings = {"precisions": ["fp32", precision], "symmetric_weights": symmetric, "per_channel": symmetric}
    config = Quantize.model_validate(settings)
    dynamic = precision == "int8-dynamic"
    model = quantize_dynamically(MODEL, config, False) if dynamic else Static(MODEL, ITEMS, config, False).without(())
    assert len(zero_points(model)) > 3
    assert any(zero_points(model)) is not symmetric
    names = {tensor.name for tensor in onnx.load_from_string(model).graph.initializer}
    read = {name for node in onnx.load_from_string(model).graph.node for name in node.input}
    assert names <= read  # what nothing reads any longer is gone


@pytest.mark.parametrize("operator", PLACES)
def test_answers_stay_to_the_bit(operator: str) -> None:
    weights = helper.make_tensor("w", TensorProto.INT8, [graphs.HIDDEN, 3], range(-graphs.HIDDEN, 2 * graphs.HIDDEN))
    constants = [
        weights,
        helper.make_tensor("zeros", TensorProto.INT8, [3], [0] * 3),
        helper.make_tensor("scales", TensorProto.FLOAT, [3], [0.1, 0.2, 0.3]),
    ]
    product = {
        "MatMulInteger": ["levels", "w", "zero", "zeros"],
        "MatMulIntegerToFloat": ["levels", "w", "scale", "scales", "zero", "zeros"],
    }[operator]
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["levels", "scale", "zero"]),
        helper.make_node(operator, product, ["y"], domain="" if operator == "MatMulInteger" else "com.microsoft"),
        helper.make_node("Cast", ["y"], [OUTPUT], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", graphs.HIDDEN])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", 3])],
        constants,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    before = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    after = leave_out_zeros(onnx.load_from_string(before)).SerializeToString()
    assert zero_points(before) == ["zeros"]
    assert zero_points(after) == [""]
    rows = np.random.default_rng(0).normal(size=(7, graphs.HIDDEN)).astype(np.float32)
    said = [open_session(model, 1, "test").run([OUTPUT], {"x": rows})[0] for model in (before, after)]
    assert (said[0] == said[1]).all()
