"""What a convolutional student is taught from inside a convolutional teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs

from serve.errors import UserError
from train.classifier import Classifier, load_classifier
from train.distill import DistillConfig, FeatureConfig
from train.distill.lesson import Lesson
from train.distill.stages import find_stages, pair_stages
from train.fit import fit
from train.fit_config import FitConfig
from train.losses import cross_entropy
from train.teaching import Teaching

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
LABELS = ("a", "b", "c")


def model(name: str, images: np.ndarray = IMAGES, **options: object) -> Classifier:
    return image_classifier(images, LABELS, model=name, **options).eval()


def config(*losses: str, layers: object = "all", **changes: float) -> DistillConfig:
    features = tuple(FeatureConfig(loss=loss, weight=2.0, layers=layers) for loss in losses)  # type: ignore[arg-type]
    return DistillConfig(**{"temperature": 2.0, "alpha": 0.5, **changes}, features=features)


def sizes(name: str) -> list[tuple[str, int, int]]:
    return [(stage.module, stage.channels, stage.size[0]) for stage in find_stages(model(name))]


def test_the_stages_of_our_networks() -> None:
    assert sizes("builtin:resnet8") == [("stages.0", 16, 16), ("stages.1", 32, 8), ("stages", 64, 4)]
    assert sizes("builtin:wrn-10-2") == [("stages.0", 32, 16), ("stages.1", 64, 8), ("leave", 128, 4)]
    assert sizes("builtin:cnn-4x8") == [("features.2", 4, 16), ("features.6", 8, 8), ("features", 8, 4)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "resnet18",
            [("relu", 64, 32), ("layer1", 64, 16), ("layer2", 128, 8), ("layer3", 256, 4), ("layer4", 512, 2)],
        ),
        ("mobilenet_v2", [("features.1", 16, 32), ("features.3", 24, 16), ("features.6", 32, 8)]),
        ("efficientnet_b0", [("features.1", 16, 32), ("features.2", 24, 16), ("features.3", 40, 8)]),
    ],
)
def test_the_stages_of_torchvisions_networks(name: str, expected: list[tuple[str, int, int]]) -> None:
    found = find_stages(model(f"torchvision:{name}", np.zeros((1, 64, 64, 3), np.uint8), image_size=64))
    assert [(stage.module, stage.channels, stage.size[0]) for stage in found][: len(expected)] == expected


@pytest.mark.parametrize("name", ["builtin:mlp-8x8", "torchvision:vit_b_16", "torchvision:swin_t"])
def test_networks_without_stages_are_refused(name: str) -> None:
    images = IMAGES if name.startswith("builtin") else np.zeros((1, 64, 64, 3), np.uint8)
    options = {} if name.startswith("builtin") else {"image_size": 64}
    with pytest.raises(UserError, match="has no stages"):
        find_stages(model(name, images, **options))


def test_stages_are_paired_by_resolution_or_from_the_end() -> None:
    resnet, cnn = find_stages(model("builtin:resnet8")), find_stages(model("builtin:cnn-4x8"))
    odd = find_stages(model("builtin:cnn-4x8", np.zeros((1, 14, 14, 3), np.uint8)))  # 14, 7, 3
    assert pair_stages(resnet, cnn) == [(0, 0), (1, 1), (2, 2)]
    assert pair_stages(resnet[1:], cnn) == [(0, 1), (1, 2)]
    assert pair_stages(odd[1:], cnn) == [(0, 1), (1, 2)]


def loss(student: Classifier, teacher: Classifier, settings: DistillConfig) -> float:
    lesson = Lesson(student, teacher, settings)
    images = torch.from_numpy(IMAGES)
    logits = student.eval()(images)
    found = lesson.loss(
        logits, lesson.answers(images), images, torch.zeros(len(IMAGES), dtype=torch.int64), cross_entropy
    )
    lesson.end()
    return found.item()


@pytest.mark.parametrize("feature", ["hints", "attention-maps"])
def test_a_student_that_is_its_teacher_has_no_loss_inside(feature: str) -> None:
    one, same = model("builtin:resnet8"), model("builtin:resnet8")
    other = image_classifier(IMAGES, LABELS, seed=7, model="builtin:resnet8").eval()
    assert loss(same, one, config(feature)) == pytest.approx(loss(same, one, config()), abs=1e-5)
    assert loss(other, one, config(feature)) > loss(other, one, config()) + 1e-3


def test_stages_are_chosen_by_number() -> None:
    student, teacher = model("builtin:cnn-4x8"), model("builtin:resnet8")
    base = loss(student, teacher, config())
    parts = [
        loss(student, teacher, config("attention-maps", layers=layers)) - base
        for layers in ("all", "last", ((2, 2),), ((0, 0), (1, 1)))
    ]
    assert parts[1] == pytest.approx(parts[2])
    assert parts[0] == pytest.approx((parts[2] + 2 * parts[3]) / 3, rel=1e-4)
    for pair, who in (((3, 0), "student has 3 stages"), ((0, 3), "teacher has 3 stages")):
        with pytest.raises(UserError, match=who) as refused:
            Lesson(student, teacher, config("hints", layers=(pair,)))
        assert "0 to 2" in refused.value.hint


def taught(student: Classifier, settings: DistillConfig, folder: Path, **fitting: object) -> Classifier:
    """The student after one lesson with a ResNet-8, without a trace of it."""
    teacher, inputs = model("builtin:resnet8"), image_inputs(IMAGES, np.arange(len(IMAGES)) % 3)
    options = {"optimizer": "sgd", "learning_rate": 0.01, "epochs": 1, "warmup": 0.0, "precision": "fp32", **fitting}
    fit(student, FitConfig(**options), inputs, inputs, 3, folder, Teaching(teacher, settings, inputs))  # type: ignore[arg-type]
    assert not any(module._forward_hooks for module in [*student.modules(), *teacher.modules()])
    return student


def without_batch_norm(classifier: Classifier) -> Classifier:
    """Batch norm takes its mean over a micro-batch, whatever the loss."""
    for module in list(classifier.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(module, name, torch.nn.Identity())
    return classifier


@pytest.mark.parametrize(
    "settings",
    [
        config("hints", "attention-maps"),
        DistillConfig(method="dkd", alpha=0.5),
        DistillConfig(method="logits-mse", alpha=0.5),
        DistillConfig(method="dist", intra_weight=0, alpha=0.5),
    ],
)
def test_accumulation_does_not_change_the_update(tmp_path: Path, settings: DistillConfig) -> None:
    states = []
    for batch_size, accumulation in ((8, 1), (2, 4)):
        student = without_batch_norm(model("builtin:cnn-4x8"))
        folder = tmp_path / f"{batch_size}"
        taught(student, settings, folder, batch_size=batch_size, accumulation=accumulation)
        states.append(student.state_dict())
    fresh = without_batch_norm(model("builtin:cnn-4x8")).state_dict()
    assert all(torch.allclose(one, states[1][name], atol=1e-6) for name, one in states[0].items())
    assert not any(torch.equal(one, fresh[name]) for name, one in states[0].items() if name.endswith("weight"))


def test_a_student_of_its_teachers_own_kind_learns_without_regressors(tmp_path: Path) -> None:
    """Born again (Furlanello et al. 2018, arXiv 1805.04770): the same network anew."""
    student = image_classifier(IMAGES, LABELS, seed=7, model="builtin:resnet8").eval()
    before = loss(student, model("builtin:resnet8"), config(alpha=1.0))
    params = student.params
    taught(student, config("hints", alpha=1.0), tmp_path, optimizer="adamw", epochs=15, batch_size=8)
    assert loss(student, model("builtin:resnet8"), config(alpha=1.0)) < before
    assert student.params == params


def test_a_teacher_of_other_labels_is_refused_by_name(tmp_path: Path) -> None:
    student, inputs = model("builtin:cnn-4x8"), image_inputs(IMAGES)
    for labels, message in ((("a", "b", "d"), "does not know c; it knows d"), (("b", "a", "c"), "in another order")):
        teacher = image_classifier(IMAGES, labels, model="builtin:resnet8")
        with pytest.raises(UserError, match=message):
            fit(student, FitConfig(), inputs, inputs, 3, tmp_path, Teaching(teacher, config(), inputs))


def test_relations_between_items_are_refused_with_accumulation(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="compares all items of an update"):
        taught(model("builtin:cnn-4x8"), DistillConfig(method="dist"), tmp_path, batch_size=4, accumulation=2)


def test_training_brings_the_maps_nearer_through_regressors_that_are_thrown_away(tmp_path: Path) -> None:
    student, teacher, settings = model("builtin:cnn-4x8"), model("builtin:resnet8"), config("hints", "attention-maps")
    seen: set[str] = set()
    student.register_forward_pre_hook(lambda module, _: seen.update(name for name, _ in module.named_children()))
    part = config("attention-maps")
    before = loss(student, teacher, part) - loss(student, teacher, config())
    taught(student, settings, tmp_path, optimizer="adamw", learning_rate=5e-3, epochs=30, batch_size=8)
    assert loss(student, teacher, part) - loss(student, teacher, config()) < 0.8 * before
    assert "projections" in seen
    student._forward_pre_hooks.clear()
    assert set(student.state_dict()) == set(load_classifier(tmp_path).state_dict())
