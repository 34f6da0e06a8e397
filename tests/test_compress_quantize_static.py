"""Static int8 of graphs with attention: what is quantized, what is not, and what it costs."""

from __future__ import annotations

from pathlib import Path

import image_models
import numpy as np
import onnx
import pytest
import text_models
import torch
from helpers import image_classifier, image_inputs
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from text_models import WORDS, text_classifier

from compress.export import export_onnx, normalisation_nodes
from compress.quantize.embeddings import quantize_embeddings
from compress.quantize.inspect import check_changed
from compress.quantize.precisions import quantize
from compress.quantize.static import WEIGHTED, products_of_activations
from serve.predictor import OUTPUT, open_session
from serve.runner import softmax
from train.classifier import Classifier
from train.inputs import Inputs, TextInputs
from train.sources import Items

RANDOM = np.random.default_rng(0)
ITEMS = [" ".join(RANDOM.choice(WORDS, length)).encode() for length in (*range(1, 30), *range(1, 30))]
IMAGES = RANDOM.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
FAMILIES = ("bert", "gpt2", "vit")


@pytest.fixture(scope="module", params=FAMILIES)
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = tmp_path_factory.mktemp("model")
    if request.param in text_models.FAMILIES:
        return text_classifier(f"hf:{text_models.tiny_folder(folder, request.param)}")
    return image_models.transformer(image_models.tiny_folder(folder, request.param))


@pytest.fixture(scope="module")
def fp32(classifier: Classifier) -> bytes:
    return export_onnx(classifier)


@pytest.fixture(scope="module")
def int8(classifier: Classifier, fp32: bytes) -> bytes:
    return quantize(fp32, "int8-static", inputs(classifier))


def inputs(classifier: Classifier) -> Inputs:
    if classifier.spec.preprocessing.kind == "image":
        return image_inputs(IMAGES)
    return TextInputs(Items(ITEMS, np.zeros(len(ITEMS), dtype=np.int64)), classifier.preparer())


def scores(model: bytes, classifier: Classifier, batch: int) -> np.ndarray:
    session, split, name = open_session(model, 1, "test"), inputs(classifier), classifier.preparer().input
    rows = [np.arange(at, min(at + batch, len(split))) for at in range(0, len(split), batch)]
    return softmax(np.concatenate([session.run([OUTPUT], {name: split.gather(some)})[0] for some in rows]), 1.0)


def test_products_with_weights_are_int8_and_all_else_is_not(fp32: bytes, int8: bytes) -> None:
    check_changed(int8, "int8-static")
    graph = onnx.load_from_string(int8).graph
    dequantized = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    constants = {tensor.name for tensor in onnx.load_from_string(fp32).graph.initializer}
    weighted = [
        node.name
        for node in onnx.load_from_string(fp32).graph.node
        if node.op_type in WEIGHTED and constants & set(node.input)
    ]
    assert len(weighted) > 8
    for node in graph.node:
        if node.op_type in WEIGHTED:
            assert (set(node.input[:2]) <= dequantized) == (node.name in weighted), node.name
        if node.op_type in ("Softmax", "LayerNormalization", "Gelu", "Erf", "Tanh", "Mul", "Transpose"):
            made = [other for other in graph.node if node.input[0] in other.output]
            assert not any(other.op_type == "DequantizeLinear" for other in made), node.name


def test_it_stays_close_and_does_not_depend_on_the_batch(classifier: Classifier, fp32: bytes, int8: bytes) -> None:
    alone, together = scores(int8, classifier, 1), scores(int8, classifier, 8)
    assert (alone.argmax(1) == together.argmax(1)).all()
    assert together == pytest.approx(alone, abs=1e-5)
    assert np.abs(alone - scores(fp32, classifier, 1)).mean() < 0.01


def test_embeddings_are_int8_by_column(tmp_path: Path) -> None:
    classifier = text_classifier(f"hf:{text_models.tiny_folder(tmp_path)}")
    with torch.no_grad():  # a column like those of pretrained models: far larger than the others
        classifier.network.model.bert.embeddings.word_embeddings.weight[:, 3] *= 100
    model = onnx.load_from_string(quantize(export_onnx(classifier), "int8-static", inputs(classifier)))
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (name,) = (name for name in tensors if name.endswith("word_embeddings.weight_int8"))
    scale = tensors[name.replace("_int8", "_scale")]
    weights = classifier.network.model.bert.embeddings.word_embeddings.weight.detach().numpy()
    assert tensors[name].dtype == np.int8
    assert (np.abs(tensors[name] * scale - weights) <= scale / 2 + 1e-6).all()
    reader = next(node for node in model.graph.node if name in node.input)
    assert reader.op_type == "Gather"  # so that it is rows which are dequantized, not the table


def test_a_table_that_is_read_otherwise_too_stays_as_it_is() -> None:
    """Tied weights: the head of a language model multiplies with its embeddings."""
    table = numpy_helper.from_array(RANDOM.normal(size=(5, 4)).astype(np.float32), "table")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Gemm", ["rows", "table"], ["logits"], transB=1),
    ]
    ids, logits = (
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5]),
    )
    tied = helper.make_model(helper.make_graph(nodes, "tied", [ids], [logits], [table]))
    before = tied.SerializeToString()
    assert quantize_embeddings(tied).SerializeToString() == before


class Reader(CalibrationDataReader):
    """Images to the tools' own calibrator, 32 at a time as to ours."""

    def __init__(self, images: np.ndarray, name: str) -> None:
        self._batches = iter([{name: images[at : at + 32]} for at in range(0, len(images), 32)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


@pytest.mark.parametrize("model", ["builtin:cnn-8x16", "builtin:mlp-64x32"])
def test_graphs_without_attention_are_quantized_whole_as_the_tools_do_it(tmp_path: Path, model: str) -> None:
    images = IMAGES[:, :12, :12, :1]
    fp32 = export_onnx(image_classifier(images, ("a", "b", "c"), model=model).eval())
    graph = onnx.load_from_string(fp32)
    assert products_of_activations(graph) == []
    reader = Reader(images, graph.graph.input[0].name)
    quantize_static(
        onnx.shape_inference.infer_shapes(graph),
        tmp_path / "whole.onnx",
        reader,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        nodes_to_exclude=normalisation_nodes(graph),
    )
    assert quantize(fp32, "int8-static", image_inputs(images)) == (tmp_path / "whole.onnx").read_bytes()
