"""Collapse is caught, with its cause: a bad calibration set, a transposed weight, a permuted label map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers import encoded, image_classifier, image_inputs
from onnx import numpy_helper
from PIL import Image
from report_factory import make_report
from test_compress_evidence_assemble import evidence, teacher

from compress import packaging
from compress.evidence.assemble import assemble
from compress.export import export_onnx
from compress.packaging import PackageResult, compare, make_package
from compress.recipe import Accept
from compress.report.schema import Choice
from compress.variants import Variant
from serve.errors import LimbeckError
from serve.package import load_package, write_package
from serve.predictor import Predictor
from train.classifier import Classifier
from train.data import DataConfig, load_data

LABELS = ("dark", "dim", "light", "bright")
RANDOM = np.random.default_rng(0)
INT8 = Variant("small", "student", "int8-static")
SHADES = RANDOM.integers(0, 4, 200)  # which of the labels each picture has
IMAGES = (RANDOM.integers(0, 50, (200, 8, 8, 1)) + 60 * SHADES[:, None, None, None]).astype(np.uint8)
PROBE = [encoded(Image.fromarray(image[..., 0])) for image in IMAGES]
BLACK = np.zeros_like(IMAGES)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """A perceptron with a square layer, 32 to 32, that has learned the shades."""
    torch.manual_seed(0)
    made = image_classifier(IMAGES, LABELS, model="builtin:mlp-32x32").train()
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(made(torch.from_numpy(IMAGES)), torch.from_numpy(SHADES))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return made.eval()


@pytest.fixture(scope="module")
def exported(classifier: Classifier) -> bytes:
    return export_onnx(classifier)


@pytest.fixture
def fp32(classifier: Classifier, exported: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(packaging, "export_onnx", lambda _: exported)
    package(classifier, None, IMAGES, tmp_path / "fp32", Variant("small", "student", "fp32"))
    return tmp_path / "fp32"


def package(
    classifier: Classifier, parent: Path | None, calibration: np.ndarray, folder: Path, plan: Variant = INT8
) -> PackageResult:
    return make_package(plan, classifier, parent, image_inputs(calibration), PROBE, {"name": "test"}, folder)


def with_weight(content: bytes, shape: tuple[int, ...], change: object) -> bytes:
    """The graph with its one weight of this shape, or of this shape transposed, put through `change`."""
    model = onnx.load_from_string(content)
    (tensor,) = (each for each in model.graph.initializer if tuple(each.dims) in (shape, shape[::-1]))
    values = change(numpy_helper.to_array(tensor))  # type: ignore[operator]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    return bytes(model.SerializeToString())


def test_what_is_well_made_has_no_cause_to_tell(classifier: Classifier, fp32: Path, tmp_path: Path) -> None:
    made = package(classifier, fp32, IMAGES, tmp_path / "int8")
    assert made.collapse == ""
    assert made.parity.disagreements < 0.1 * len(PROBE)


def test_black_calibration_images_are_told_as_the_reason_of_the_rejection(
    classifier: Classifier, fp32: Path, tmp_path: Path
) -> None:
    made = package(classifier, fp32, BLACK, tmp_path / "int8")
    share = 1 - made.parity.disagreements / made.parity.n
    assert made.collapse.startswith(f"its answers agree with those of small-fp32 on only {share:.0%} of 200 items: ")
    assert "the calibration range of node" in made.collapse
    assert "the calibration items are not like these" in made.collapse

    data = load_data(DataConfig(source="digits", test=500, validation=100, calibration=50), seed=0)
    plan = Variant("large", "student", "int8-static")
    measured = evidence(data, plan, wrong=range(200))
    assert measured.package is not None
    collapsed = measured.package.model_copy(update={"collapse": made.collapse})
    variants = [teacher(data), type(measured)(**{**vars(measured), "package": collapsed})]
    choice = Choice(id=plan.id, reason="The fastest.", ranking=[])
    report = assemble(make_report().run, Accept(max_drop_points=2.0), data, choice, variants, seed=0)
    verdict = report.variant(plan.id)
    assert verdict.verdict == "rejected"
    assert verdict.reasons[0] == made.collapse
    assert "over the margin of 2" in verdict.reasons[1]


def test_a_transposed_weight_is_named(
    classifier: Classifier, exported: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = with_weight(exported, (32, 32), lambda weight: weight.T)
    monkeypatch.setattr(packaging, "export_onnx", lambda _: damaged)
    plan = Variant("small", "student", "fp32")
    with pytest.raises(
        LimbeckError, match=r"does not compute what the model does.*the weight of node '.*' is transpos"
    ):
        package(classifier, None, IMAGES, tmp_path / "fp32", plan)


def test_a_head_in_another_order_is_named(
    classifier: Classifier, exported: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = [2, 3, 0, 1]

    def turned(weight: np.ndarray) -> np.ndarray:
        return weight[order] if len(weight) == 4 else weight[:, order]

    damaged = with_weight(exported, (4, 32), turned)
    monkeypatch.setattr(packaging, "export_onnx", lambda _: damaged)
    plan = Variant("small", "student", "fp32")
    with pytest.raises(LimbeckError, match=r"the label map is permuted: 'dark' is called 'light'"):
        package(classifier, None, IMAGES, tmp_path / "fp32", plan)


def test_a_package_with_its_labels_in_another_order_is_refused(
    classifier: Classifier, fp32: Path, tmp_path: Path
) -> None:
    good = load_package(fp32)
    permuted = good.manifest.model_copy(update={"labels": LABELS[::-1], "files": {}, "id": ""})
    write_package(tmp_path / "permuted", permuted, dict(good.files), good.card, good.serving)
    with pytest.raises(LimbeckError, match="the label map is not that of small-fp32: bright, light, dim, dark against"):
        compare(Predictor.load(tmp_path / "permuted"), Predictor(good), PROBE, "small-fp32")
