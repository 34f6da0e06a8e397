"""A student with fewer channels or blocks computes what its teacher does, where what is gone did nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from helpers import encoded
from image_models import IMAGES, image_inputs, image_model, tiny_folder, transformer
from PIL import Image
from torch import nn
from torch.nn.modules.conv import _ConvNd

from compress.export import export_onnx
from serve.errors import UserError
from train.classifier import Classifier, ModelConfig, load_classifier, new_classifier, next_pruned, save_classifier
from train.draft import Wanted
from train.models import check_teacher
from train.models.channels import width_for
from train.models.residual_blocks import removable_blocks, residual_blocks
from train.sources import Items

LABELS = ("ant", "bee", "cat")


def student_of(teacher: Classifier, share: str = "0.5", **options: Any) -> Classifier:
    config = ModelConfig(model=f"teacher-channels:{share}", options=options).checked("image")
    return new_classifier(config, wanted(teacher)).eval()


def wanted(teacher: Classifier) -> Wanted:
    items = Items([encoded(Image.fromarray(image)) for image in IMAGES], np.arange(len(IMAGES)) % len(LABELS))
    return Wanted("image", LABELS, 1, items, lambda _: image_inputs(IMAGES), teacher)


@torch.no_grad()
def says(classifier: Classifier) -> np.ndarray:
    return classifier.eval()(torch.from_numpy(IMAGES)).numpy()


def widths(classifier: Classifier) -> dict[str, int]:
    layers = {name: part for name, part in classifier.network.named_modules() if isinstance(part, _ConvNd | nn.Linear)}
    return {name: len(layer.weight) for name, layer in layers.items()}


@torch.no_grad()
def lively(classifier: Classifier) -> Classifier:
    """Batch norms with statistics and weights that differ, as training leaves them."""
    torch.manual_seed(0)
    for part in classifier.network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.weight.uniform_(0.5, 1.5)
            part.bias.normal_(std=0.3)
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 1.5)
    return classifier


@torch.no_grad()
def silence_every_second(classifier: Classifier, layers: tuple[type[nn.Module], ...] = (_ConvNd, nn.Linear)) -> None:
    """Make every second channel of each layer but the last nothing, and what takes it take nothing."""
    *inner, last = [part for part in classifier.network.modules() if isinstance(part, layers)]
    for part in inner:
        part.weight[::2] = 0
        if part.bias is not None:
            part.bias[::2] = 0
    for part in classifier.network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.weight[::2], part.bias[::2] = 0, 0
    for part in (*inner[1:], last):
        part.weight[:, ::2] = 0


@pytest.mark.parametrize("importance", ["taylor", "magnitude", "bn-scale"])
@pytest.mark.parametrize("model", ["builtin:resnet8", "builtin:wrn-10-2", "builtin:cnn-16x32"])
def test_channels_that_did_nothing_are_what_is_cut(tmp_path: Path, model: str, importance: str) -> None:
    teacher = lively(image_model(model, image_size=32))
    silence_every_second(teacher)
    expected = says(teacher)
    assert np.ptp(expected, axis=0).max() > 1e-3  # it tells images apart
    student = student_of(teacher, importance=importance)
    assert np.allclose(says(student), expected, atol=1e-5)
    before, after = widths(teacher), widths(student)
    assert all(after[name] == (before[name] // 2 if before[name] > 3 else 3) for name in before)
    assert (says(teacher) == expected).all()  # which is left as it was
    save_classifier(student, tmp_path)
    again = load_classifier(tmp_path)
    assert (says(again) == says(student)).all()
    assert again.params == sum(value.numel() for value in again.network.parameters()) == student.params


def test_widths_are_multiples_of_round_to() -> None:
    teacher = image_model("builtin:resnet8", image_size=32)
    for round_to, expected in ((8, {16: 8, 32: 24, 64: 40}), (16, {16: 16, 32: 16, 64: 48}), (1, {16: 10, 32: 21})):
        student = student_of(teacher, "0.65", round_to=round_to, importance="magnitude")
        before, after = widths(teacher), widths(student)
        assert all(
            after[name] == width for name in before for whole, width in expected.items() if before[name] == whole
        )


def test_half_way_between_two_widths_is_the_wider_one_and_none_is_nothing() -> None:
    assert [width_for(share, 16, 8) for share in (0.75, 0.74, 0.01, 1)] == [16, 8, 8, 16]
    assert width_for(0.5, 6, 8) == 6  # narrower than a block to begin with
    assert width_for(0.5, 64, 8, divisor=12) == 24


def test_steps_end_at_the_same_widths_as_one() -> None:
    teacher = lively(image_model("builtin:resnet14", image_size=32))
    at_once = student_of(teacher, "0.5", blocks=4)
    config = ModelConfig(model="teacher-channels:0.5", options={"blocks": 4, "steps": 3})
    asked, student = new_classifier(config, wanted(teacher)), teacher
    sizes = [teacher.params]
    for step in (1, 2, 3):
        student = next_pruned(student, config, wanted(teacher), step)
        sizes.append(student.params)
    assert sorted(widths(asked).values()) == sorted(widths(student).values())
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4
    assert sorted(widths(student).values()) == sorted(widths(at_once).values())
    assert says(student).shape == (len(IMAGES), 3)


@pytest.mark.parametrize("model", ["builtin:resnet20", "builtin:wrn-16-2"])
def test_the_block_that_did_nothing_is_the_one_that_goes(tmp_path: Path, model: str) -> None:
    teacher = lively(image_model(model, image_size=32))
    name = removable_blocks(teacher.network)[1]
    for part in teacher.network.get_submodule(name).body[-1:]:  # adds nothing to what goes around it
        nn.init.zeros_(part.weight)
        if getattr(part, "bias", None) is not None:
            nn.init.zeros_(part.bias)
    with torch.no_grad():  # labels that the teacher is sure of, so that every other block is missed
        items = wanted(teacher).train
        items.labels[:] = says(teacher).argmax(axis=1)
    total = len(residual_blocks(teacher.network))
    config = ModelConfig(model="teacher-channels:1.0", options={"blocks": total - 1})
    found = Wanted("image", LABELS, 1, items, lambda _: image_inputs(IMAGES), teacher)
    student = new_classifier(config, found).eval()
    save_classifier(student, tmp_path)
    gone = json.loads((tmp_path / "spec.json").read_text())["network"]["pruned"]["removed"]
    assert len(gone) == 1
    if gone == [name]:
        assert np.allclose(says(load_classifier(tmp_path)), says(teacher), atol=1e-5)
    else:  # it lowers the loss to be without: then the loss without is below the teacher's own
        assert loss(student, items) < loss(teacher, items)


def loss(classifier: Classifier, items: Items) -> float:
    return float(nn.functional.cross_entropy(torch.from_numpy(says(classifier)), torch.from_numpy(items.labels)))


def test_a_pruned_teacher_is_pruned_again(tmp_path: Path) -> None:
    save_classifier(
        student_of(lively(image_model("builtin:resnet14", image_size=32)), "0.5", blocks=5), tmp_path / "teacher"
    )
    teacher = image_model(f"run:{tmp_path}")
    student = student_of(teacher, "0.5", blocks=4, round_to=4)
    save_classifier(student, tmp_path / "student")
    assert (says(load_classifier(tmp_path / "student")) == says(student)).all()
    assert {name: width for name, width in widths(student).items() if width > 3}.items() <= {
        name: width // 2 for name, width in widths(teacher).items()
    }.items()


def test_the_exported_graph_agrees() -> None:
    student = student_of(lively(image_model("builtin:resnet14", image_size=32)), "0.5", blocks=4)
    graph = export_onnx(student)
    (answer,) = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"images": IMAGES})
    assert np.allclose(answer, says(student), atol=1e-4)


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "mnasnet0_5", "regnet_y_400mf"])
def test_torchvisions_networks_are_pruned(tmp_path: Path, name: str) -> None:
    teacher = image_model(f"torchvision:{name}", image_size=64)
    has_blocks = len(removable_blocks(teacher.network))
    options = {"blocks": len(residual_blocks(teacher.network)) - 1} if has_blocks else {}
    student = student_of(teacher, "0.5", importance="magnitude", **options)
    assert student.params < 0.5 * teacher.params
    save_classifier(student, tmp_path)
    assert (says_64(load_classifier(tmp_path)) == says_64(student)).all()


@torch.no_grad()
def says_64(classifier: Classifier) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    return classifier.eval()(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("family", ["resnet", "convnext", "mobilenet_v2"])
def test_convolutional_networks_of_transformers_are_pruned(tmp_path: Path, family: str) -> None:
    teacher = transformer(tiny_folder(tmp_path / "model", family))
    student = student_of(teacher, "0.5", round_to=4, importance="magnitude")
    assert student.params < 0.4 * teacher.params
    save_classifier(student, tmp_path / "student")
    assert (says(load_classifier(tmp_path / "student")) == says(student)).all()


def test_what_cannot_be_pruned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has attention") as told:
        student_of(transformer(tiny_folder(tmp_path / "model", "vit")))
    assert "teacher-layers" in told.value.hint
    with pytest.raises(UserError, match="shufflenet_v2_x0_5' cannot be made narrower"):
        student_of(image_model("torchvision:shufflenet_v2_x0_5", image_size=64), importance="magnitude")


@pytest.mark.parametrize(
    ("share", "options", "said"),
    [
        ("0", {}, "names no share"),
        ("1.5", {}, "names no share"),
        ("half", {}, "names no share"),
        ("1.0", {}, "nothing to prune"),
        ("1", {"blocks": 2, "round_to": 8}, "round_to is about the channels that stay"),
        ("0.5", {"importance": "magnitude", "importance_items": 9}, "looks at no items"),
        ("0.5", {"recovery_epochs": 2}, "steps = 1"),
        ("0.5", {"channels": 2}, "does not take option channels"),
        ("0.5", {"importance": "hessian"}, "does not take option importance = 'hessian'"),
    ],
)
def test_options_that_say_nothing_are_refused_when_the_recipe_is_read(
    share: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        ModelConfig(model=f"teacher-channels:{share}", options=options).checked("image")


def test_texts_are_refused() -> None:
    with pytest.raises(UserError, match="the recipe's task is text"):
        ModelConfig(model="teacher-channels:0.5").checked("text")


@pytest.mark.parametrize(
    ("model", "share", "options", "said"),
    [
        ("builtin:resnet8", "0.9", {"round_to": 64}, "no layer of the teacher .* gets narrower"),
        ("builtin:resnet14", "0.5", {"blocks": 1}, "2 change the size of the maps"),
        ("builtin:resnet14", "0.5", {"blocks": 6}, "give blocks = 2 to 5"),
        ("builtin:cnn-8", "0.5", {"blocks": 1}, "no residual blocks"),
    ],
)
def test_what_the_teacher_has_not_is_told_of_an_untrained_one(
    model: str, share: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as told:
        check_teacher(f"teacher-channels:{share}", options, image_model(model, image_size=32))
    assert re.search(said, f"{told.value} {told.value.hint}")


def test_a_record_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_classifier(student_of(image_model("builtin:resnet8", image_size=32)), tmp_path)
    spec = json.loads((tmp_path / "spec.json").read_text())
    shapes = spec["network"]["pruned"]["shapes"]
    for changes, said in (
        ({"stem.0.weight": [99, 3, 3, 3]}, "'stem.0.weight' is to have the shape"),
        ({"nowhere.weight": [8]}, "there is no 'nowhere'"),
        ({"stem.0.weights": [8]}, "no such weights"),
        ({"stem.0.weight": [4, 3, 3, 3]}, "do not fit together"),
    ):
        spec["network"]["pruned"]["shapes"] = {**shapes, **changes}
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        with pytest.raises(UserError, match=said):
            load_classifier(tmp_path)
