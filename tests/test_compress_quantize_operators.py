"""The operator form: the same levels as QDQ, with a product, its scales and its bias in one node."""

from __future__ import annotations

import graphs
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.quantize.config import Quantize
from compress.quantize.inspect import check_changed
from compress.quantize.static import Static
from serve.errors import UserError

ITEMS = graphs.ids()
MODEL = graphs.transformer()


def static(form: str, model: onnx.ModelProto = MODEL, **settings: object) -> bytes:
    config = Quantize.model_validate({"precisions": ["fp32", "int8-static"], "form": form, "smoothing": 0, **settings})
    return Static(model, ITEMS, config, False).without(())


@pytest.mark.parametrize("settings", [{}, {"per_channel": False}, {"symmetric_activations": True}])
def test_both_forms_give_the_same_answers(settings: dict[str, object]) -> None:
    answers = [graphs.logits(static(form, **settings), ITEMS) for form in ("qdq", "operator")]
    assert answers[1] == pytest.approx(answers[0], abs=1e-4)
    assert np.abs(answers[1] - graphs.logits(MODEL, ITEMS)).max() < 0.3


def test_products_take_their_bias_along() -> None:
    found = graphs.operators(static("operator"))
    assert found.count("MatMulIntegerToFloat") == 4  # query, value, up, down
    assert found.count("Add") == graphs.operators(MODEL).count("Add") - 3
    assert found.count("MatMul") == 2  # those of attention
    check_changed(static("operator"), "int8-static")


def test_it_does_not_depend_on_the_batch() -> None:
    model = static("operator")
    assert graphs.logits(model, ITEMS, batch=1) == pytest.approx(graphs.logits(model, ITEMS, batch=96), abs=1e-5)


def test_auto_is_the_operator_form_where_there_is_attention() -> None:
    assert static("auto") == static("operator")


def test_weights_with_a_zero_point() -> None:
    asymmetric, plain = (static("operator", symmetric_weights=flag, per_channel=False) for flag in (False, True))
    assert asymmetric != plain
    assert graphs.logits(asymmetric, ITEMS) == pytest.approx(graphs.logits(plain, ITEMS), abs=0.5)


def chosen_by_sign() -> onnx.ModelProto:
    """A product of which Where takes a part, and another one."""
    random = np.random.default_rng(0)
    arrays = {
        "table": random.normal(size=(graphs.TOKENS, 8)).astype(np.float32),
        "inner": random.normal(size=(8, 8)).astype(np.float32),
        "head": random.normal(size=(8, 3)).astype(np.float32),
        "zero": np.array(0, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], name="rows"),
        helper.make_node("ReduceMax", ["rows"], ["most"], name="most", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["most", "inner"], ["hidden"], name="hidden"),
        helper.make_node("Greater", ["most", "zero"], ["positive"], name="positive"),
        helper.make_node("Where", ["positive", "hidden", "zero"], ["chosen"], name="chosen"),
        helper.make_node("MatMul", ["chosen", "head"], ["logits"], name="logits"),
    ]
    graph = helper.make_graph(
        nodes,
        "signs",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "L"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_graph_that_this_form_cannot_take_is_refused_with_the_remedy() -> None:
    model = chosen_by_sign()
    check_changed(static("qdq", model=model), "int8-static")
    with pytest.raises(UserError, match="cannot be quantized with quantize\\.form = 'operator'") as refused:
        static("operator", model=model)
    assert refused.value.hint == "leave quantize.form out"
