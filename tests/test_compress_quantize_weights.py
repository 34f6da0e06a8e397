"""Weight-only precisions: small on disk, floats once loaded, the same whatever the batch."""

from __future__ import annotations

from pathlib import Path

import graphs
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from compress.quantize.config import Quantize
from compress.quantize.inspect import check_changed
from compress.quantize.precisions import quantize
from compress.quantize.weights import quantize_weights
from serve.manifest import Precision
from serve.predictor import OUTPUT, open_session

ITEMS = graphs.ids()
MODEL = graphs.transformer()
BITS: dict[Precision, int] = {"int8-weights": 8, "int4-weights": 4}


def made(precision: Precision, **settings: object) -> bytes:
    config = Quantize.model_validate({"precisions": ["fp32", precision], **settings})
    return quantize(MODEL.SerializeToString(), precision, ITEMS, config)


@pytest.mark.parametrize(("precision", "tolerance"), [("int8-weights", 0.05), ("int4-weights", 0.8)])
def test_answers_stay_near_fp32_and_do_not_depend_on_the_batch(precision: Precision, tolerance: float) -> None:
    model = made(precision)
    check_changed(model, precision)
    expected = graphs.logits(MODEL, ITEMS)
    assert np.abs(graphs.logits(model, ITEMS) - expected).mean() < tolerance
    assert graphs.logits(model, ITEMS, batch=1) == pytest.approx(graphs.logits(model, ITEMS, batch=96), abs=1e-5)
    assert len(model) < len(MODEL.SerializeToString()) * {8: 0.5, 4: 0.4}[BITS[precision]]


@pytest.mark.parametrize("precision", list(BITS))
def test_the_runtime_folds_the_weights_when_it_opens_the_graph(precision: Precision, tmp_path: Path) -> None:
    """So that a call costs what it costs in fp32: no node is left that unpacks a weight."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "opened.onnx")
    ort.InferenceSession(made(precision), options, providers=["CPUExecutionProvider"])
    opened = onnx.load(tmp_path / "opened.onnx")
    constants = {tensor.name for tensor in opened.graph.initializer}
    unpacking = [node for node in opened.graph.node if node.op_type in ("Cast", "Mul") and node.input[0] in constants]
    assert not unpacking
    assert graphs.operators(opened).count("MatMul") == graphs.operators(MODEL).count("MatMul")


@pytest.mark.parametrize("precision", list(BITS))
@pytest.mark.parametrize(("embeddings", "scales"), [("row", (graphs.TOKENS, 1)), ("column", (graphs.HIDDEN,))])
def test_tables_are_as_the_recipe_says(precision: Precision, embeddings: str, scales: tuple[int, ...]) -> None:
    model = made(precision, embeddings=embeddings)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in onnx.load_from_string(model).graph.initializer}
    assert shapes["table_int8"] == (graphs.TOKENS, graphs.HIDDEN)
    assert shapes["table_scale"] == scales
    assert np.abs(graphs.logits(model, ITEMS) - graphs.logits(MODEL, ITEMS)).mean() < 0.8


def test_levels_of_int4_are_rounded_to_the_nearest_by_block() -> None:
    model = onnx.load_from_string(made("int4-weights", block_size=16))
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    assert shapes["up_int4"] == (2, 16, graphs.INNER)
    assert shapes["up_scale"] == (2, 1, graphs.INNER)
    assert shapes["table_int4"] == (graphs.TOKENS, graphs.HIDDEN)
    assert "GatherBlockQuantized" in graphs.operators(model)


def test_embeddings_can_stay_as_they_are_and_nodes_too() -> None:
    model = onnx.load_from_string(made("int8-weights", embeddings="none", exclude=["make_up_product"]))
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types["table"] == types["up"] == onnx.TensorProto.FLOAT
    assert types["down_int8"] == onnx.TensorProto.INT8


@pytest.mark.parametrize("bits", [8, 4])
def test_convolutions_get_eight_bits(bits: int) -> None:
    random = np.random.default_rng(0)
    kernel = numpy_helper.from_array(random.normal(size=(8, 4, 3, 3)).astype(np.float32), "kernel")
    pixels, maps = (
        helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["n", 4, 6, 6]),
        helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["n", 8, 4, 4]),
    )
    graph = helper.make_graph(
        [helper.make_node("Conv", ["pixels", "kernel"], [OUTPUT])], "g", [pixels], [maps], [kernel]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    images = {"pixels": random.normal(size=(5, 4, 6, 6)).astype(np.float32)}
    (expected,) = open_session(model.SerializeToString(), 1, "test").run([OUTPUT], images)
    quantized = quantize_weights(model, Quantize(precisions=("fp32", "int4-weights")), bits)
    scale = next(tensor for tensor in onnx.load_from_string(quantized).graph.initializer if "scale" in tensor.name)
    assert list(scale.dims) == [8, 1, 1, 1]
    assert open_session(quantized, 1, "test").run([OUTPUT], images)[0] == pytest.approx(expected, abs=0.2)


def test_a_graph_of_an_older_opset_gets_4_bits_too() -> None:
    """Opset 18 made inputs of attributes, which 21 does not know as attributes any longer."""
    for opset in (13, 17):
        old = graphs.plain(opset)
        config = Quantize(precisions=("fp32", "int4-weights"))
        model = quantize(old.SerializeToString(), "int4-weights", ITEMS, config)
        check_changed(model, "int4-weights")
        assert np.abs(graphs.logits(model, ITEMS) - graphs.logits(old, ITEMS)).mean() < 1
