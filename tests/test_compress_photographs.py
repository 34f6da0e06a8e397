"""The main job on a folder of photographs of odd sizes and kinds, with a torchvision model at 224 pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import encoded
from PIL import Image
from tiny_run import Ran, run_content
from torchvision import models

from serve.predictor import Predictor
from serve.runner import scores
from train.classifier import load_classifier
from train.torch_runner import TorchRunner

CLASSES = ("blue", "green", "red")


def photograph(seed: int) -> Image.Image:
    """Soft shapes and noise, 240 to 420 pixels a side, tinted by class."""
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers(240, 420, 2))
    shapes = rng.integers(0, 256, (6, 6, 3))
    shapes[..., 2 - seed % 3] += 90
    smooth = Image.fromarray(shapes.clip(0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth).astype(int) + rng.integers(-15, 16, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def file_of(seed: int) -> tuple[str, bytes]:
    """A photograph as JPEG, lying on its side, as CMYK, with alpha, with a palette: whatever people have."""
    image, kind = photograph(seed), seed // 3 % 5
    if kind == 1:
        exif = Image.Exif()
        exif[0x0112] = 6
        return "jpg", encoded(image.rotate(90, expand=True), "JPEG", exif=exif)
    if kind == 2:
        return "jpg", encoded(image.convert("CMYK"), "JPEG")
    if kind == 3:
        image.putalpha(200)
        return "png", encoded(image)
    return ("png", encoded(image.quantize(64))) if kind == 4 else ("jpg", encoded(image, "JPEG", quality=90))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    for seed in range(30):
        suffix, content = file_of(seed)
        (root / CLASSES[seed % 3]).mkdir(exist_ok=True)
        (root / CLASSES[seed % 3] / f"{seed}.{suffix}").write_bytes(content)
    return root


@pytest.fixture(scope="module")
def ran(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    recipe: dict[str, Any] = {
        "name": "photographs",
        "task": "image",
        "data": {"source": f"imagefolder:{folder}", "calibration": 6, "validation": 6, "test": 6},
        "teacher": {
            "model": "torchvision:mobilenet_v3_small",
            "fit": {"epochs": 1, "batch_size": 11},
        },
        "quantize": {"precisions": ["fp32", "int8-static"]},
        "evaluate": {"batch_sizes": [1], "latency_samples": 20},
        "accept": {"max_drop_points": 90.0},
    }
    return run_content(recipe, tmp_path_factory.mktemp("run") / "run", memory=False)


@pytest.fixture(scope="module")
def items(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.rglob("*.*"))]


def test_training_and_serving_prepare_every_kind_of_file_alike(ran: Ran, items: list[bytes]) -> None:
    runner, predictor = TorchRunner(load_classifier(ran.folder / "teacher")), Predictor.load(packages(ran)[0])
    prepared = runner.prepare(items)
    assert prepared.shape == (30, 224, 224, 3)
    assert np.array_equal(prepared, predictor.prepare(items))
    assert scores(predictor, items) == pytest.approx(scores(runner, items), abs=1e-4)


def test_they_prepare_as_torchvision_does(ran: Ran, items: list[bytes]) -> None:
    preset = models.MobileNet_V3_Small_Weights.DEFAULT.transforms()
    mean, std = np.array(preset.mean), np.array(preset.std)
    compared = 0
    predictor = Predictor.load(packages(ran)[0])
    for item in items:
        image = Image.open(io.BytesIO(item))
        if image.mode in ("RGB", "CMYK") and not image.getexif():
            theirs = np.rint((preset(image.convert("RGB")).permute(1, 2, 0).numpy() * std + mean) * 255)
            assert np.abs(predictor.prepare([item])[0].astype(int) - theirs).max() <= 1
            compared += 1
    assert compared == 12


def test_every_variant_is_measured(ran: Ran) -> None:
    measured = {variant.id: variant for variant in ran.report.variants}
    assert set(measured) == {"teacher-torch", "teacher-fp32", "teacher-int8-static"}
    assert measured["teacher-fp32"].parity is not None
    assert measured["teacher-fp32"].parity.max_abs < 1e-4
    assert measured["teacher-int8-static"].size_bytes < 0.35 * measured["teacher-fp32"].size_bytes


def packages(ran: Ran) -> list[Path]:
    return [ran.folder / "packages" / name for name in ("teacher-fp32", "teacher-int8-static")]
