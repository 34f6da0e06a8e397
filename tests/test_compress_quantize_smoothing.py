"""SmoothQuant: the same function, with activations that int8 can hold."""

from __future__ import annotations

import graphs
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.quantize.calibration import watch
from compress.quantize.config import Quantize
from compress.quantize.mixed import divergence
from compress.quantize.precisions import convert
from compress.quantize.smoothing import _groups, smooth
from compress.quantize.static import Static

ITEMS = graphs.ids()
MODEL = graphs.transformer(outlier=40)


def spread(model: object, tensor: str) -> float:
    """The largest column of a tensor over the median one."""
    found: list[np.ndarray] = []
    watch(model, [tensor], ITEMS, lambda batch: found.append(batch[tensor]))  # type: ignore[arg-type]
    columns = np.abs(np.concatenate(found).reshape(-1, graphs.HIDDEN)).max(axis=0)
    return float(columns.max() / np.median(columns))


@pytest.mark.parametrize("alpha", [0.3, 0.85, 1.0])
def test_a_smoothed_graph_computes_the_same(alpha: float) -> None:
    before = MODEL.SerializeToString()
    smoothed = smooth(MODEL, ITEMS, alpha)
    assert graphs.logits(smoothed, ITEMS) == pytest.approx(graphs.logits(MODEL, ITEMS), abs=2e-4)
    assert MODEL.SerializeToString() == before  # what it was made of is left alone


def test_columns_become_alike() -> None:
    assert spread(MODEL, "normed") > 15
    assert spread(smooth(MODEL, ITEMS, 1.0), "normed_smoothed") < 1.01


def test_a_norm_that_nothing_else_reads_takes_the_scales() -> None:
    """`normed` feeds the keys too, so it costs a Mul, as the product after the GELU; `normed_context` costs nothing."""
    assert graphs.operators(smooth(MODEL, ITEMS, 0.85)).count("Mul") == graphs.operators(MODEL).count("Mul") + 2
    names = {tensor.name for tensor in smooth(MODEL, ITEMS, 0.85).graph.initializer}
    assert "ones_smoothed_make_normed_context" in names
    assert not {"up", "down", "ones"} & names  # and what is no longer read is gone


def test_what_attention_gives_is_left_alone() -> None:
    """The average of values that the head's product reads costs no Mul; norms and activations are smoothed."""
    nodes = [
        helper.make_node("LayerNormalization", ["x", "ones"], ["normed"]),
        helper.make_node("MatMul", ["normed", "w"], ["values"]),
        helper.make_node("MatMul", ["weights", "values"], ["seen"]),
        helper.make_node("Transpose", ["seen"], ["turned"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["turned", "w"], ["inner"]),
        helper.make_node("Sigmoid", ["inner"], ["gate"]),
        helper.make_node("Mul", ["inner", "gate"], ["activated"]),  # SiLU, written out
        helper.make_node("MatMul", ["activated", "w"], ["y"]),
    ]
    constants = {"ones": np.ones(4), "w": np.eye(4)}
    inputs = {"x": [2, 3, 4], "weights": [2, 3, 3]}
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 2, 4])],
        [numpy_helper.from_array(content.astype(np.float32), name) for name, content in constants.items()],
    )
    assert set(_groups(helper.make_model(graph))) == {"normed", "activated"}


def test_static_int8_is_closer_to_fp32_with_it() -> None:
    found = {}
    for alpha in (0.0, 0.85):
        config = Quantize(precisions=("fp32", "int8-static"), smoothing=alpha)
        quantized = Static(MODEL, ITEMS, config, False).without(())
        found[alpha] = divergence(graphs.scores(MODEL, ITEMS), graphs.scores(quantized, ITEMS))
    assert found[0.85] < found[0.0] / 3


def test_smoothing_that_finds_nothing_is_told() -> None:
    bare = graphs.plain()
    assert smooth(bare, ITEMS, 0.5) is bare
    settings = Quantize(precisions=("fp32", "int8-static"), smoothing=0.5)
    made = convert(bare.SerializeToString(), "int8-static", ITEMS, settings)
    assert any("smoothing = 0.5 changed nothing" in note for note in made.notes)
    assert not convert(MODEL.SerializeToString(), "int8-static", ITEMS, settings).notes
