"""Embedding tables of a graph without attention, such as a TextCNN's, in static int8."""

from __future__ import annotations

from typing import Any

import graphs
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.quantize.config import Quantize
from compress.quantize.precisions import quantize
from serve.manifest import Precision
from serve.predictor import OUTPUT

ITEMS = graphs.ids()


def bag() -> onnx.ModelProto:
    """`ids` int64 [N, L] to `logits` float32 [N, 3]: the mean of embeddings, and a perceptron."""
    random = np.random.default_rng(0)
    tensors = {
        "table": random.normal(size=(graphs.TOKENS, graphs.HIDDEN)),
        "up": random.normal(size=(graphs.HIDDEN, 16)) / 4,
        "up_bias": np.zeros(16),
        "head": random.normal(size=(16, graphs.CLASSES)),
        "head_bias": np.zeros(graphs.CLASSES),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"], name="lookup"),
        helper.make_node("ReduceMean", ["embedded", "axis"], ["pooled"], name="mean", keepdims=0),
        helper.make_node("Gemm", ["pooled", "up", "up_bias"], ["inner"], name="hidden"),
        helper.make_node("Relu", ["inner"], ["active"], name="relu"),
        helper.make_node("Gemm", ["active", "head", "head_bias"], [OUTPUT], name="out"),
    ]
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()]
    graph = helper.make_graph(
        nodes,
        "bag",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "l"])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", graphs.CLASSES])],
        [*constants, numpy_helper.from_array(np.array([1]), "axis")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


MODEL = bag()


def tables(**settings: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What the graph in static int8 has of the table, by name: types and shapes."""
    config = Quantize.model_validate({"precisions": ["fp32", "int8-static"], **settings})
    made = quantize(MODEL.SerializeToString(), "int8-static", ITEMS, config)
    assert np.abs(graphs.logits(made, ITEMS) - graphs.logits(MODEL, ITEMS)).mean() < 0.05
    kept = [tensor for tensor in onnx.load_from_string(made).graph.initializer if tensor.name.startswith("table")]
    return {tensor.name: (TensorProto.DataType.Name(tensor.data_type), tuple(tensor.dims)) for tensor in kept}


@pytest.mark.parametrize("form", ["qdq", "operator"])
def test_tables_are_as_the_recipe_says(form: str) -> None:
    whole = (graphs.TOKENS, graphs.HIDDEN)
    assert tables(form=form, embeddings="none")["table"] == ("FLOAT", whole)
    by_row, by_column = (tables(form=form, embeddings=name) for name in ("row", "column"))
    assert by_row["table_int8"] == by_column["table_int8"] == ("INT8", whole)
    assert by_row["table_scale"] == ("FLOAT", (graphs.TOKENS, 1))
    assert by_column["table_scale"] == ("FLOAT", (graphs.HIDDEN,))
    assert tables(form=form)["table_quantized"] == ("UINT8", whole)  # the tool's, one scale for all


QUANTIZED: tuple[tuple[Precision, str], ...] = (
    ("int8-static", "row"),
    ("int8-static", "column"),
    ("int8-dynamic", "row"),
    ("int8-dynamic", "column"),
    ("int8-weights", "auto"),
    ("int4-weights", "auto"),
    ("int4-weights", "column"),
)


@pytest.mark.parametrize(("precision", "embeddings"), QUANTIZED)
@pytest.mark.parametrize("excluded", [False, True])
@pytest.mark.parametrize("model", [graphs.plain(), graphs.transformer()])
def test_a_lookup_that_is_excluded_stays_in_floating_point(
    precision: Precision, embeddings: str, excluded: bool, model: onnx.ModelProto
) -> None:
    """Also where rows go right into a product, whose scale a quantizer names after them."""
    lookup = next(node for node in model.graph.node if node.op_type == "Gather")
    settings = {"embeddings": embeddings, "exclude": [lookup.name] if excluded else []}
    config = Quantize.model_validate({"precisions": ["fp32", precision], **settings})
    made = quantize(model.SerializeToString(), precision, ITEMS, config)
    assert np.abs(graphs.logits(made, ITEMS) - graphs.logits(model, ITEMS)).mean() < 2
    names = [tensor.name for tensor in onnx.load_from_string(made).graph.initializer]
    assert ("table" in names) == excluded
