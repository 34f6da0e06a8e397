"""Graphs of text models: the same answers as torch at any batch and length, in each precision."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from text_models import FAMILIES, WORDS, text_classifier, tiny_folder

from compress.export import export_onnx
from compress.first_token import take_first_token_early
from compress.quantize.inspect import check_changed
from compress.quantize.precisions import quantize
from serve.manifest import Precision
from serve.predictor import OUTPUT, open_session
from serve.runner import softmax
from train.classifier import Classifier
from train.inputs import TextInputs
from train.sources import Items

RANDOM = np.random.default_rng(0)
ITEMS = [" ".join(RANDOM.choice(WORDS, length)).encode() for length in (*range(1, 60), 90)]


@pytest.fixture(scope="module", params=[*FAMILIES, "textcnn", "narrow bert", "narrow gpt2"])
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    if request.param == "textcnn":
        return text_classifier("builtin:textcnn", embedding=16, filters=16)
    family = request.param.removeprefix("narrow ")
    whole = text_classifier(f"hf:{tiny_folder(tmp_path_factory.mktemp('model'), family)}", ("a", "b", "c"))
    if family == request.param:
        return whole
    return text_classifier("teacher-layers:2", ("a", "b", "c"), whole, heads=1, ffn_width=40)


@pytest.fixture(scope="module")
def fp32(classifier: Classifier) -> bytes:
    return export_onnx(classifier)


def answers(model: bytes, classifier: Classifier, batch: int) -> np.ndarray:
    session, preparer = open_session(model, 1, "test"), classifier.preparer()
    batches = [preparer.prepare(ITEMS[at : at + batch]) for at in range(0, len(ITEMS), batch)]
    return softmax(np.concatenate([session.run([OUTPUT], {"input_ids": ids})[0] for ids in batches]), 1.0)


def in_torch(classifier: Classifier) -> np.ndarray:
    with torch.inference_mode():
        rows = [classifier(torch.from_numpy(classifier.preparer().prepare([item]))) for item in ITEMS]
    return softmax(torch.cat(rows).numpy(), 1.0)


def test_fp32_is_torch_at_every_length_and_batch(classifier: Classifier, fp32: bytes) -> None:
    for batch in (1, 7, 32):
        assert answers(fp32, classifier, batch) == pytest.approx(in_torch(classifier), abs=1e-4)


@pytest.mark.parametrize("precision", ["fp16", "int8-dynamic", "int8-static"])
def test_every_precision_is_what_it_says_and_still_answers(
    classifier: Classifier, fp32: bytes, precision: Precision
) -> None:
    calibration = TextInputs(Items(ITEMS, np.zeros(len(ITEMS), dtype=np.int64)), classifier.preparer())
    model = quantize(fp32, precision, calibration)
    check_changed(model, precision)
    ours, theirs = answers(model, classifier, 1), in_torch(classifier)
    assert np.isfinite(ours).all()
    assert np.abs(ours - theirs).mean() < (0.01 if precision == "fp16" else 0.12)


def test_encoders_compute_their_last_layer_for_the_first_token_alone(tmp_path: Path) -> None:
    classifier = text_classifier(f"hf:{tiny_folder(tmp_path)}")
    graph = onnx.load_from_string(export_onnx(classifier)).graph
    made_by = {name: node for node in graph.node for name in node.output}
    early = [node for node in graph.node if node.op_type == "Gather" and node.output[0].endswith("_first_token")]
    assert len(early) == 2  # what attention gives, and the residual beside it
    assert {made_by[node.input[0]].op_type for node in early} == {"Reshape", "LayerNormalization"}


def test_a_graph_without_a_first_token_is_left_alone() -> None:
    model = onnx.load_from_string(export_onnx(text_classifier("builtin:textcnn", embedding=8, filters=4)))
    before = Counter(node.op_type for node in model.graph.node)
    assert Counter(node.op_type for node in take_first_token_early(model).graph.node) == before


def test_the_export_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    classifier = text_classifier(f"hf:{tiny_folder(tmp_path)}")
    export_onnx(classifier)
    assert classifier.network.model.config._attn_implementation == "sdpa"
