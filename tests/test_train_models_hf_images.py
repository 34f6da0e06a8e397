from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import encoded
from image_models import FAMILIES, IMAGES, image_model, tiny_folder, transformer
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification

from compress.export import export_onnx
from serve.errors import UserError
from serve.images import prepare_image
from serve.manifest import ImagePreprocessing
from serve.predictor import open_session
from train.classifier import Classifier, load_classifier, save_classifier
from train.torch_runner import TorchRunner

LABELS = ("ant", "bee", "cat")


def photograph(width: int, height: int) -> bytes:
    rng = np.random.default_rng(width)
    smooth = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height), 3)
    pixels = np.asarray(smooth).astype(int) + rng.integers(-20, 21, (height, width, 3))
    return encoded(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), "JPEG", quality=92)


PHOTOGRAPHS = [photograph(*size) for size in ((81, 60), (47, 98), (64, 64), (33, 40))]


@torch.no_grad()
def logits(classifier: Classifier) -> torch.Tensor:
    result: torch.Tensor = classifier.eval()(torch.from_numpy(IMAGES))
    return result


def processed(folder: Path, **arguments: Any) -> np.ndarray:
    """What transformers makes of the photographs: float32 [N, C, H, W]."""
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    images = [Image.open(io.BytesIO(item)) for item in PHOTOGRAPHS]
    return np.stack(processor(images, return_tensors="np", **arguments)["pixel_values"])


@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_to_logits_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / family, family)
    runner = TorchRunner(transformer(folder))
    pixels = processed(folder, do_rescale=False, do_normalize=False).transpose(0, 2, 3, 1)
    ours = runner.prepare(PHOTOGRAPHS)
    assert np.abs(ours.astype(int) - pixels.astype(int)).max() <= 1
    with torch.no_grad():
        model = AutoModelForImageClassification.from_pretrained(folder).eval()
        expected = model(torch.from_numpy(processed(folder))).logits.numpy()
    assert runner.logits(ours) == pytest.approx(expected, abs=0.02)
    assert (runner.logits(ours).argmax(axis=1) == expected.argmax(axis=1)).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_built_again_from_its_spec_alone_and_exports(family: str, tmp_path: Path) -> None:
    classifier = transformer(tiny_folder(tmp_path / "model", family))
    save_classifier(classifier, tmp_path / "saved")
    for file in (tmp_path / "model").iterdir():
        file.unlink()
    loaded = load_classifier(tmp_path / "saved")
    assert torch.allclose(logits(loaded), logits(classifier), rtol=1e-5, atol=1e-6)
    assert str(tmp_path) not in loaded.spec.network.model_dump_json()
    session = open_session(export_onnx(loaded), 1, "test")
    for batch in (IMAGES, IMAGES[:1]):
        ours = session.run(["logits"], {"images": batch})[0]
        assert ours == pytest.approx(logits(classifier).numpy()[: len(batch)], abs=1e-4, rel=1e-4)


def test_a_head_for_the_datas_labels_is_kept_in_the_datas_order(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "vit", labels=LABELS)
    same, turned = transformer(folder), transformer(folder, labels=("cat", "Ant", "bee"))
    assert same.untrained is None
    assert turned.untrained is None
    assert torch.allclose(logits(turned), logits(same)[:, [2, 0, 1]])


@pytest.mark.parametrize("own", [None, ("x", "y", "z"), ("a", "b")])
def test_another_head_is_replaced_and_said_so(tmp_path: Path, own: tuple[str, ...] | None) -> None:
    folder = tiny_folder(tmp_path / "vit", labels=own)
    classifier = transformer(folder)
    assert logits(classifier).shape == (6, 3)
    assert classifier.untrained is not None
    saved = load_file(folder / "model.safetensors")
    key = next(key for key in saved if key.endswith("layernorm_before.weight") or "patch_embeddings" in key)
    state = classifier.network.state_dict()
    found = next(name for name in state if name.endswith(key.removeprefix("vit.")))
    assert torch.equal(state[found], saved[key])
    assert torch.equal(logits(transformer(folder)), logits(classifier))  # from the seed


def test_layers_of_a_vision_transformer_can_be_taken(tmp_path: Path) -> None:
    teacher = transformer(tiny_folder(tmp_path / "vit", layers=3))
    student = image_model("teacher-layers:1", teacher=teacher)
    assert logits(student).shape == (6, 3)
    assert student.params < teacher.params


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "vit")
    state = load_file(folder / "model.safetensors")
    name = next(name for name in state if name.endswith("layernorm_after.weight"))
    save_file({key: tensor for key, tensor in state.items() if key != name}, folder / "model.safetensors")
    with pytest.raises(UserError, match="layernorm_after") as refused:
        transformer(folder)
    assert refused.value.hint


def test_another_image_size_is_tried_before_training(tmp_path: Path) -> None:
    convolutions = transformer(tiny_folder(tmp_path / "resnet", "resnet"), image_size=64)
    spec = convolutions.spec.preprocessing
    assert isinstance(spec, ImagePreprocessing)
    assert (spec.size, spec.resize_to) == ((64, 64), 72)  # 36 for 32
    with pytest.raises(UserError, match="does not take images of 64x64"):
        transformer(tiny_folder(tmp_path / "vit"), image_size=64)


def test_options(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "vit")
    dropped = transformer(folder, dropout=0.4)
    assert {part.p for part in dropped.modules() if isinstance(part, torch.nn.Dropout)} == {0.4}
    with pytest.raises(UserError, match="does not take option drop_out"):
        transformer(folder, drop_out=0.4)
    with pytest.raises(UserError, match="has no dropout"):
        transformer(tiny_folder(tmp_path / "resnet", "resnet"), dropout=0.4)


# -- preprocessing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "mean", "std"),
    [
        ({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)),
        ({"image_mean": 0.5, "image_std": 0.25}, (0.5,) * 3, (0.25,) * 3),
        ({"do_normalize": False}, (0.0,) * 3, (1.0,) * 3),
        ({"do_rescale": False, "do_normalize": False}, (0.0,) * 3, (1 / 255,) * 3),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}, (0.5,) * 3, (0.5,) * 3),
    ],
)
def test_scaling_and_normalising_are_one_normalisation(
    tmp_path: Path, changes: dict[str, Any], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    folder = tiny_folder(tmp_path / "vit", **changes)
    classifier = transformer(folder)
    assert classifier.spec.normalisation is not None
    assert classifier.spec.normalisation.mean == pytest.approx(mean)
    assert classifier.spec.normalisation.std == pytest.approx(std)
    prepared = torch.from_numpy(TorchRunner(classifier).prepare(PHOTOGRAPHS))
    theirs = processed(folder)
    assert classifier.front(prepared)[0].numpy() == pytest.approx(theirs, abs=1.01 / 255 / min(std))


@pytest.mark.parametrize(
    ("family", "changes", "field"),
    [
        ("vit", {"do_resize": False}, "do_resize"),
        ("vit", {"resample": 5}, "resample"),
        ("vit", {"size": {"shortest_edge": 32}}, "do_center_crop"),
        ("vit", {"size": {"shortest_edge": 32, "longest_edge": 64}}, "size"),
        ("vit", {"do_pad": True}, "do_pad"),
        ("vit", {"do_flip_channel_order": True}, "do_flip_channel_order"),
        ("vit", {"invented": 7}, "invented"),
        ("vit", {"image_mean": [0.5]}, "image_mean"),
        ("vit", {"image_processor_type": "EfficientNetImageProcessor"}, "image_processor_type"),
        ("deit", {"size": {"height": 40, "width": 44}}, "size"),
        ("convnext", {"do_center_crop": True, "crop_size": 32}, "do_center_crop"),
    ],
)
def test_what_the_schema_cannot_say_is_refused_by_name(
    tmp_path: Path, family: str, changes: dict[str, Any], field: str
) -> None:
    folder = tiny_folder(tmp_path / family, family, **changes)
    with pytest.raises(UserError) as refused:
        transformer(folder)
    assert f"{field} = " in refused.value.message


def test_convnext_warps_to_384_and_above(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "resnet", "resnet", size={"shortest_edge": 384})
    spec = transformer(folder).spec.preprocessing
    assert spec == ImagePreprocessing(color="RGB", size=(384, 384), interpolation="bicubic")
    pixels = processed(folder, do_rescale=False, do_normalize=False)[0].transpose(1, 2, 0)
    assert np.abs(prepare_image(PHOTOGRAPHS[0], spec).astype(int) - pixels.astype(int)).max() <= 1


def test_a_folder_without_a_processor_or_with_a_broken_one_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "vit")
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "NoSuchThing"}))
    with pytest.raises(UserError, match="preprocessor_config"):
        transformer(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"has no preprocessor_config\.json"):
        transformer(folder)
