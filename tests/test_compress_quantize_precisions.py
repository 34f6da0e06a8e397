from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from helpers import image_classifier, image_inputs
from onnx import TensorProto

from compress.export import export_onnx, normalisation_nodes
from compress.quantize.inspect import check_changed, describe_graph
from compress.quantize.precisions import quantize
from serve.errors import LimbeckError
from serve.images import ImagePreparer
from serve.manifest import Precision
from serve.predictor import OUTPUT, open_session
from serve.runner import softmax
from train.classifier import Classifier

CHANGED: tuple[Precision, ...] = ("fp16", "int8-dynamic", "int8-static")
MODELS = ("builtin:cnn-8x16", "builtin:mlp-64x32")
IMAGES = np.random.default_rng(0).integers(0, 256, (70, 12, 12, 1), dtype=np.uint8)


@pytest.fixture(scope="module", params=MODELS)
def classifier(request: pytest.FixtureRequest) -> Classifier:
    return image_classifier(IMAGES, ("a", "b", "c"), model=request.param).eval()


@pytest.fixture(scope="module")
def fp32(classifier: Classifier) -> bytes:
    return export_onnx(classifier)


def logits(model: bytes, images: np.ndarray) -> np.ndarray:
    return open_session(model, 1, "test").run([OUTPUT], {ImagePreparer.input: images})[0]


def test_the_export_computes_what_torch_does_at_any_batch_size(classifier: Classifier, fp32: bytes) -> None:
    with torch.inference_mode():
        expected = classifier(torch.from_numpy(IMAGES)).numpy()
    for size in (1, 7, 32, 70):
        answers = [logits(fp32, IMAGES[start : start + size]) for start in range(0, 70, size)]
        assert np.concatenate(answers) == pytest.approx(expected, abs=1e-5)


def test_the_export_takes_bytes_and_is_one_file(fp32: bytes) -> None:
    graph = onnx.load_from_string(fp32).graph
    assert [entry.name for entry in (*graph.input, *graph.output)] == [ImagePreparer.input, OUTPUT]
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert all(tensor.data_location != TensorProto.EXTERNAL for tensor in graph.initializer)


@pytest.mark.parametrize("precision", CHANGED)
def test_every_precision_is_what_it_says_and_still_answers(fp32: bytes, precision: Precision) -> None:
    model = quantize(fp32, precision, image_inputs(IMAGES))
    check_changed(model, precision)
    assert len(model) < len(fp32)
    expected = softmax(logits(fp32, IMAGES), 1.0)
    for size in (1, 7, 32):
        answers = np.concatenate([logits(model, IMAGES[start : start + size]) for start in range(0, 70, size)])
        assert answers.dtype == np.float32
        assert softmax(answers, 1.0) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("precision", CHANGED)
def test_a_graph_that_was_not_changed_is_refused(fp32: bytes, precision: Precision) -> None:
    with pytest.raises(LimbeckError, match=f"{precision} changed only 0% of the weights"):
        check_changed(fp32, precision)


def test_weights_in_int8_without_quantized_activations_are_not_enough(fp32: bytes) -> None:
    model = onnx.load_from_string(quantize(fp32, "int8-static", image_inputs(IMAGES)))
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            node.op_type = "Identity"
    with pytest.raises(LimbeckError, match="int8-static changed only"):
        check_changed(model.SerializeToString(), "int8-static")


def test_fp32_is_the_same_graph(fp32: bytes) -> None:
    assert quantize(fp32, "fp32", image_inputs(IMAGES)) == fp32
    check_changed(fp32, "fp32")
    assert describe_graph(fp32)["weights"] == {"float": 1.0}
    assert describe_graph(fp32)["quantize_nodes"] == 0


def test_normalisation_stays_in_floating_point(fp32: bytes) -> None:
    names = normalisation_nodes(onnx.load_from_string(fp32))
    assert names
    graph = onnx.load_from_string(quantize(fp32, "int8-static", image_inputs(IMAGES))).graph
    kept = {node.name: node for node in graph.node}
    dequantized = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    for name in names:
        assert kept[name].op_type in ("Transpose", "Cast", "Mul", "Add")
        assert not dequantized & set(kept[name].input)
    assert {"Cast", "Mul", "Add"} <= {kept[name].op_type for name in names}


def test_static_ranges_come_from_all_calibration_items(fp32: bytes) -> None:
    """Only the very last item is bright: a quantizer that skipped it would clip what bright images need."""
    dark = np.zeros_like(IMAGES)
    last = dark.copy()
    last[-1] = IMAGES[-1]
    assert quantize(fp32, "int8-static", image_inputs(dark)) != quantize(fp32, "int8-static", image_inputs(last))


@pytest.mark.parametrize("precision", CHANGED)
def test_the_same_graph_gives_the_same_bytes(fp32: bytes, precision: Precision) -> None:
    assert quantize(fp32, precision, image_inputs(IMAGES)) == quantize(fp32, precision, image_inputs(IMAGES))
