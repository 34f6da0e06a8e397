"""Imported graphs as exporters write them, without names and with weights that are no initializers, are quantized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tomli_w
from helpers import TEXT_LABELS, VOCABULARY, texts, tiny_tokenizer
from onnx import NodeProto, TensorProto, helper, numpy_helper

from compress.onnx_model import OnnxClassifier, import_onnx
from compress.quantize.inspect import check_changed
from compress.quantize.precisions import quantize
from compress.quantize.static import products_of_activations
from serve.manifest import Precision
from serve.predictor import OUTPUT, open_session
from train.inputs import TextInputs
from train.sources import Items

WIDTH = 32
DESCRIBED = {"labels": list(TEXT_LABELS), "preprocessing": {"kind": "text", "max_length": 16, "pad_id": 0}}


def network(weights: str, named: bool, opset: int = 18) -> onnx.ModelProto:
    """The first token's vector through two products with weights and one of two activations, as in attention."""
    random = np.random.default_rng(0)
    arrays = {
        "vectors": random.normal(size=(len(VOCABULARY), WIDTH)).astype(np.float32),
        "inner": random.normal(scale=0.2, size=(WIDTH, WIDTH)).astype(np.float32),
        "head": random.normal(scale=0.2, size=(WIDTH, 3)).astype(np.float32),
        **{name: np.array([value]) for name, value in (("one", 1), ("two", 2))},
        "zero": np.array(0),
    }
    nodes: list[NodeProto] = []
    for name in ("inner", "head"):
        if weights == "constants":
            value = numpy_helper.from_array(arrays.pop(name), name)
            nodes.append(helper.make_node("Constant", [], [name], value=value))
        elif weights == "transposed":
            arrays[f"{name}_t"] = arrays.pop(name).T.copy()
            nodes.append(helper.make_node("Transpose", [f"{name}_t"], [name], perm=[1, 0]))
    mean = {"axes": [1]} if opset < 18 else {}  # an attribute, then an input
    nodes += [
        helper.make_node("Gather", ["vectors", "input_ids"], ["rows"]),
        helper.make_node("Gather", ["rows", "zero"], ["first"], axis=1),
        helper.make_node("MatMul", ["first", "inner"], ["hidden"]),
        helper.make_node("ReduceMean", ["hidden"] if mean else ["hidden", "one"], ["mean"], keepdims=1, **mean),
        helper.make_node("Sub", ["hidden", "mean"], ["centred"]),
        helper.make_node("Unsqueeze", ["centred", "one"], ["row"]),
        helper.make_node("Unsqueeze", ["centred", "two"], ["column"]),
        helper.make_node("MatMul", ["row", "column"], ["product"]),
        helper.make_node("Squeeze", ["product", "two"], ["square"]),
        helper.make_node("Add", ["centred", "square"], ["sum"]),
        helper.make_node("MatMul", ["sum", "head"], ["logits"]),
    ]
    for at, node in enumerate(nodes):
        node.name = f"{node.op_type}{at}" if named else ""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["N", "L"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def imported(folder: Path, model: onnx.ModelProto) -> OnnxClassifier:
    (folder / "tokenizer.json").write_bytes(tiny_tokenizer())
    (folder / "model.toml").write_text(tomli_w.dumps(DESCRIBED))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return import_onnx(folder / "model.onnx")


def inputs(found: OnnxClassifier) -> TextInputs:
    return TextInputs(Items(texts(40), np.zeros(40, dtype=np.int64)), found.preparer())


def logits(model: bytes, items: TextInputs) -> np.ndarray:
    return open_session(model, 1, "test").run([OUTPUT], {"input_ids": items.gather(np.arange(40))})[0]


@pytest.mark.parametrize("weights", ["initializers", "constants", "transposed"])
@pytest.mark.parametrize("named", [True, False])
def test_all_products_with_weights_are_quantized_however_the_graph_was_written(
    tmp_path: Path, weights: str, named: bool
) -> None:
    found = imported(tmp_path, network(weights, named))
    graph = onnx.load_model_from_string(found.model)
    assert len(products_of_activations(graph)) == 1
    items = inputs(found)
    kinds: tuple[Precision, ...] = ("int8-static", "int8-dynamic", "int8-weights")
    for precision in kinds:
        model = quantize(found.model, precision, items)
        check_changed(model, precision)
        assert logits(model, items) == pytest.approx(logits(found.model, items), abs=0.5)


def test_each_node_has_a_name_of_its_own(tmp_path: Path) -> None:
    model = network("initializers", named=False)
    model.graph.node[0].name = "Gather_0"  # what the next one would be called
    names = [node.name for node in onnx.load_model_from_string(imported(tmp_path, model).model).graph.node]
    assert len(set(names)) == len(names)
    assert names[1:3] == ["model/Gather_0", "model/Gather_1"]
    assert all(names)


@pytest.mark.parametrize("precision", ["int8-static", "int8-dynamic", "int8-weights", "int4-weights"])
def test_what_was_quantized_elsewhere_is_known_by_its_operators(tmp_path: Path, precision: Precision) -> None:
    found = imported(tmp_path, network("initializers", named=True))
    assert found.precision == "fp32"
    quantized = quantize(found.model, precision, inputs(found))
    assert imported(tmp_path, onnx.load_model_from_string(quantized)).precision == precision


def test_a_mask_of_bytes_makes_no_int8_model(tmp_path: Path) -> None:
    model = network("initializers", named=True)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((8, 8), np.uint8), "mask"))
    model.graph.node.append(helper.make_node("Cast", ["mask"], ["unread"], name="Cast99", to=TensorProto.FLOAT))
    assert imported(tmp_path, model).precision == "fp32"
