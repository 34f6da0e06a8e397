"""Why a graph answers otherwise than its parent: a bad calibration, a damaged weight, a permuted label map."""

from __future__ import annotations

import graphs
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compress.quantize.collapse import check_label_map, diagnose, permuted
from compress.quantize.config import Quantize
from compress.quantize.inspect import transposed_weights
from compress.quantize.static import Static
from serve.errors import UserError

ITEMS = graphs.ids(128)
FP32 = graphs.transformer()
CLASSES = ("bird", "cat", "dog")


def told(model: bytes | onnx.ModelProto, parent: onnx.ModelProto = FP32) -> str:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    ours, theirs = (graphs.scores(each, ITEMS) for each in (content, parent))
    return diagnose(ours, theirs, CLASSES, "small-fp32", content, parent.SerializeToString(), ITEMS)


def static(items: graphs.Ids, **settings: object) -> bytes:
    config = Quantize.model_validate({"precisions": ["fp32", "int8-static"], **settings})
    return Static(FP32, items, config, False).without(())


def changed(name: str, values: np.ndarray, model: onnx.ModelProto | None = None) -> onnx.ModelProto:
    model = onnx.ModelProto.FromString((model or FP32).SerializeToString())
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
    return model


def weight(name: str) -> np.ndarray:
    return numpy_helper.to_array(next(tensor for tensor in FP32.graph.initializer if tensor.name == name))


def test_a_good_calibration_needs_no_reason() -> None:
    assert told(static(ITEMS)) == ""


@pytest.mark.parametrize("settings", [{"form": "qdq", "smoothing": 0}, {"smoothing": 0}, {}])
def test_a_constant_calibration_set_is_named(settings: dict[str, object]) -> None:
    """The token that says nothing, over and over, as black images would be."""
    why = told(static(graphs.Ids(np.zeros((40, 12), dtype=np.int64)), **settings))
    assert why.startswith("its answers agree with those of small-fp32 on only")
    assert "the calibration range of node 'make_" in why
    assert "of its values are cut off: the calibration items are not like these" in why


def test_ranges_that_are_far_too_wide_are_named() -> None:
    config = Quantize(precisions=("fp32", "int8-static"), smoothing=0)
    planned = Static(FP32, ITEMS, config, False)
    planned.ranges = {name: (low * 300, high * 300) for name, (low, high) in planned.ranges.items()}
    why = told(planned.without(()))
    assert "of 256 levels: the calibration items are not like these" in why


def test_a_damaged_weight_is_found_at_its_node() -> None:
    why = told(changed("value", weight("value").T * -3))
    assert "node 'make_value_product' is the first to compute something else" in why


def test_units_that_are_always_zero_are_not_blamed_on_the_calibration() -> None:
    """GELU of -1,000: in the range of a tensor that is nothing but 0 there is nothing to be cut off."""
    dead = changed("up_bias", np.full(graphs.INNER, -1000, dtype=np.float32))
    damaged = changed("value", weight("value").T * -3, dead)
    config = Quantize(precisions=("fp32", "int8-static"), smoothing=0, form="qdq")
    why = told(Static(damaged, ITEMS, config, False).without(()), dead)
    assert "node 'make_value_product' is the first to compute something else" in why


def test_a_node_that_makes_what_is_no_number_is_found() -> None:
    why = told(changed("value", np.full_like(weight("value"), np.nan)))
    assert "node 'make_value_product' is the first to compute something else" in why


def test_a_transposed_weight_is_told_from_one_that_is_not() -> None:
    as_torch_keeps_it = {"layer.value.weight": weight("value").T.copy(), "layer.query.weight": weight("query").T.copy()}
    assert transposed_weights(FP32.SerializeToString(), as_torch_keeps_it) == []
    found = transposed_weights(changed("value", weight("value").T).SerializeToString(), as_torch_keeps_it)
    assert found == ["the weight of node 'make_value_product' is transposed (layer.value.weight)"]


def test_a_permuted_label_map_is_named() -> None:
    why = told(changed("head", weight("head")[:, [1, 2, 0]]))
    assert "the label map is permuted: 'bird' is called 'dog'" in why
    assert "under that map 100% agree" in why


def test_only_another_order_of_the_labels_is_a_permutation() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    assert "'cat' is called 'bird'" in permuted((labels + 2) % 3, labels, CLASSES)
    assert permuted(labels, labels, CLASSES) == ""
    assert permuted(random.integers(0, 3, 300), labels, CLASSES) == ""
    assert permuted(np.zeros(300, dtype=np.int64), labels, CLASSES) == ""  # a constant answer


def test_a_teacher_whose_labels_are_in_another_order_is_refused() -> None:
    """Everything made of it would be held against its wrong answers, and pass."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 500)
    sloppy = np.where(random.random(500) < 0.2, random.integers(0, 3, 500), labels)
    check_label_map(sloppy, labels, CLASSES, "teacher")
    check_label_map(random.integers(0, 3, 500), labels, CLASSES, "teacher")  # merely bad
    with pytest.raises(
        UserError, match=r"the label map is permuted: 'bird' is called 'cat'.* where teacher is right on"
    ):
        check_label_map((sloppy + 1) % 3, labels, CLASSES, "teacher")
