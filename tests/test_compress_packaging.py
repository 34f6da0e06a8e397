from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import encoded, image_classifier, image_inputs
from onnx import numpy_helper
from PIL import Image

from compress import packaging
from compress.export import export_onnx
from compress.graph.choose import Tried
from compress.packaging import PackageResult, batch_difference, compare, is_batch_invariant, make_package
from compress.variants import Variant
from serve.errors import LimbeckError
from serve.manifest import Precision
from serve.package import load_package
from serve.predictor import Predictor
from serve.runner import scores
from train.classifier import Classifier
from train.torch_runner import TorchRunner

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
# From black to white: a batch's range, and so dynamic int8's scale, depends on which of them it holds.
PROBE = [encoded(Image.fromarray((image[..., 0] * (row / 64)).astype(np.uint8))) for row, image in enumerate(IMAGES)]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return image_classifier(IMAGES, tuple("abcde"), model="builtin:mlp-64").eval()


class _Read:
    """A package whose graph is another."""

    def __init__(self, folder: Path, graph: bytes) -> None:
        self.files = {**load_package(folder).files, "model.onnx": graph}


def made(classifier: Classifier, folder: Path, precision: Precision, fp32: Path | None = None) -> PackageResult:
    variant = Variant("small", "student", precision)
    return make_package(variant, classifier, fp32, image_inputs(IMAGES), PROBE, {"name": "test/small"}, folder)


@pytest.fixture(scope="module")
def fp32(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp32") / "package"
    made(classifier, folder, "fp32")
    return folder


def test_an_fp32_package_is_what_torch_computes(classifier: Classifier, tmp_path: Path) -> None:
    result = made(classifier, tmp_path / "package", "fp32")
    package = load_package(tmp_path / "package")
    assert result.package_id == package.manifest.id
    assert (result.parity.against, result.parity.n, result.parity.disagreements) == ("small-torch", 64, 0)
    assert result.batch_invariant
    assert package.manifest.batch_invariant
    assert package.card == {"name": "test/small"}
    assert scores(Predictor(package), PROBE) == pytest.approx(scores(TorchRunner(classifier), PROBE), abs=1e-6)


def test_an_export_that_computes_something_else_is_refused(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(module: Classifier) -> bytes:
        model = onnx.load_from_string(export_onnx(module))
        tensor = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)
        changed = numpy_helper.to_array(tensor).copy()
        changed[0] += 0.05
        tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
        return bytes(model.SerializeToString())

    monkeypatch.setattr(packaging, "export_onnx", wrong)
    with pytest.raises(LimbeckError, match="the exported graph of small does not compute what the model does"):
        made(classifier, tmp_path / "package", "fp32")


@pytest.mark.parametrize("precision", ["fp16", "int8-static"])
def test_other_precisions_are_compared_with_their_fp32_package(
    classifier: Classifier, fp32: Path, tmp_path: Path, precision: Precision
) -> None:
    result = made(classifier, tmp_path / "package", precision, fp32)
    ours, theirs = scores(Predictor.load(tmp_path / "package"), PROBE), scores(Predictor.load(fp32), PROBE)
    assert result.parity.against == "small-fp32"
    assert result.parity.max_abs == pytest.approx(np.abs(ours - theirs).max())
    assert 0 < result.parity.max_abs < 0.05
    assert result.parity.disagreements == (ours.argmax(axis=1) != theirs.argmax(axis=1)).sum()
    assert result.batch_invariant


def test_dynamic_int8_is_measured_to_depend_on_the_batch_and_then_run_item_by_item(
    classifier: Classifier, fp32: Path, tmp_path: Path
) -> None:
    result = made(classifier, tmp_path / "package", "int8-dynamic", fp32)
    assert not result.batch_invariant
    assert result.batch_difference > packaging.BATCH_TOLERANCE
    predictor = Predictor.load(tmp_path / "package")
    assert not predictor.package.manifest.batch_invariant
    together = scores(predictor, PROBE)
    for size in (1, 7, 32):
        parts = [scores(predictor, PROBE[start : start + size]) for start in range(0, 64, size)]
        assert (np.concatenate(parts) == together).all()
    assert (scores(predictor, PROBE[::-1])[::-1] == together).all()
    assert is_batch_invariant(predictor, PROBE)


class Leaky:
    """A runner whose scores depend on how many items come together."""

    labels = ("a", "b")

    def __init__(self, leak: float) -> None:
        self.leak = leak

    def prepare(self, items: Any) -> np.ndarray:
        return np.zeros((len(items), 2), np.float32)

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        return inputs + np.array([self.leak * len(inputs), 0], np.float32)

    def compute(self, inputs: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def test_a_difference_between_batches_is_found_and_sized() -> None:
    assert batch_difference(Leaky(0.0), PROBE) == 0
    # softmax at batches of 32 and 1: sigmoid(0.32) - sigmoid(0.01)
    assert batch_difference(Leaky(0.01), PROBE) == pytest.approx(0.0768, abs=1e-4)
    assert not is_batch_invariant(Leaky(0.01), PROBE)


def test_comparison_counts_labels_that_differ(classifier: Classifier, fp32: Path) -> None:
    other = image_classifier(IMAGES, classifier.spec.labels, seed=2, model="builtin:mlp-64").eval()
    parity = compare(TorchRunner(other), Predictor.load(fp32), PROBE, "small-fp32")
    ours, theirs = (scores(runner, PROBE).argmax(axis=1) for runner in (TorchRunner(other), Predictor.load(fp32)))
    assert parity.disagreements == (ours != theirs).sum() > 0
    assert parity.n == 64


def test_what_was_tried_on_a_graph_is_told(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = [Tried(name="one", what="less", kept=True, why="faster", n=9, before_ms=2.0, after_ms=1.0, rounds=5)]
    seen: list[np.ndarray] = []

    def rewritten(fp32: bytes, *rest: Any) -> tuple[bytes, list[Tried]]:
        seen.extend(rest[3])
        return fp32, tried

    monkeypatch.setattr(packaging, "rewritten", rewritten)
    variant = Variant("small", "student", "fp32")
    result = make_package(variant, classifier, None, image_inputs(IMAGES), PROBE, {}, tmp_path / "p", rewrites=True)
    assert result.rewrites == tried
    assert result.graph["rewrites"] == {"one": "kept, 0.50 of the time"}
    assert [item.shape for item in seen] == [(1, 8, 8, 1)] * len(PROBE)


@pytest.mark.parametrize("hides", [True, False])
def test_int8_is_rewritten_from_the_plain_export_where_fp32s_rewrites_hide_others(
    classifier: Classifier, fp32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hides: bool
) -> None:
    started: list[bytes] = []

    def rewritten(graph: bytes, *rest: Any) -> tuple[bytes, list[Tried]]:
        started.append(graph)
        return graph, []

    plain = export_onnx(classifier)
    changed = onnx.load_from_string(plain)
    changed.doc_string = "rewritten"
    monkeypatch.setattr(packaging, "rewritten", rewritten)
    monkeypatch.setattr(packaging, "hides_rewrites", lambda _: hides)
    monkeypatch.setattr(packaging, "load_package", lambda folder: _Read(folder, changed.SerializeToString()))
    variant, calibration = Variant("small", "student", "int8-dynamic"), image_inputs(IMAGES)
    make_package(variant, classifier, fp32, calibration, PROBE, {}, tmp_path / "p", rewrites=True)
    assert started == [plain if hides else changed.SerializeToString()]
