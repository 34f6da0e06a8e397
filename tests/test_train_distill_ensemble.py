"""Several teachers speak as one: against scipy, for each method, and in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs
from pydantic import ValidationError
from scipy.special import softmax
from scipy.stats import entropy
from text_models import TEXTS, text_classifier, tiny_folder

from serve.errors import UserError
from train.augment import AugmentConfig
from train.classifier import Classifier
from train.distill import DistillConfig
from train.distill.answers import answers_loss
from train.distill.ensemble import combined
from train.fit import fit
from train.fit_config import FitConfig
from train.inputs import TextInputs
from train.sources import Items
from train.teaching import Teaching

GENERATOR = np.random.default_rng(0)
STUDENT, ONE, TWO = (GENERATOR.normal(0, 3, (9, 5)) for _ in range(3))
LABELS = torch.from_numpy(GENERATOR.integers(0, 5, 9))
METHODS = ("soft-targets", "logits-mse", "dkd", "dist")


def config(method: str = "soft-targets", **changes: Any) -> DistillConfig:
    temperature = {} if method == "logits-mse" else {"temperature": 3.0}
    return DistillConfig(**{"method": method, "teachers": ("teacher", "second"), **temperature, **changes})


def together(settings: DistillConfig) -> torch.Tensor:
    return combined([torch.tensor(ONE), torch.tensor(TWO)], settings)


def test_probabilities_are_averaged_at_the_temperature() -> None:
    mean = 0.25 * softmax(ONE / 3, axis=1) + 0.75 * softmax(TWO / 3, axis=1)
    settings = config(teacher_weights=(2.0, 6.0))
    assert softmax(together(settings).numpy() / 3, axis=1) == pytest.approx(mean)
    loss = answers_loss(torch.tensor(STUDENT), together(settings), LABELS, settings)
    assert loss.item() == pytest.approx(9 * entropy(mean, softmax(STUDENT / 3, axis=1), axis=1).sum())


def test_logits_are_averaged_where_logits_are_compared() -> None:
    settings = config("logits-mse", teacher_weights=(1.0, 3.0))
    expected = ((STUDENT - (0.25 * ONE + 0.75 * TWO)) ** 2).sum() / 5
    loss = answers_loss(torch.tensor(STUDENT), together(settings), LABELS, settings)
    assert loss.item() == pytest.approx(expected)


def test_dkd_takes_the_label_and_the_rest_out_of_the_mean() -> None:
    rows, labels, mine = np.arange(9), LABELS.numpy(), softmax(STUDENT / 3, axis=1)
    mean = (softmax(ONE / 3, axis=1) + softmax(TWO / 3, axis=1)) / 2

    def divergence(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own = p[rows, labels]
        rest = np.array([np.delete(row, at) for row, at in zip(p, labels, strict=True)])
        return np.stack([own, 1 - own], axis=1), rest / rest.sum(axis=1, keepdims=True)

    (its, its_rest), (ours, our_rest) = divergence(mean), divergence(mine)
    expected = 9 * (entropy(its, ours, axis=1) + 8 * entropy(its_rest, our_rest, axis=1)).sum()
    loss = answers_loss(torch.tensor(STUDENT), together(config("dkd")), LABELS, config("dkd"))
    assert loss.item() == pytest.approx(expected)


def test_dist_correlates_with_the_mean() -> None:
    mean = (softmax(ONE / 3, axis=1) + softmax(TWO / 3, axis=1)) / 2
    mine = softmax(STUDENT / 3, axis=1)
    inter = sum(1 - np.corrcoef(ours, theirs)[0, 1] for ours, theirs in zip(mine, mean, strict=True))
    intra = 9 * np.mean([1 - np.corrcoef(ours, theirs)[0, 1] for ours, theirs in zip(mine.T, mean.T, strict=True)])
    loss = answers_loss(torch.tensor(STUDENT), together(config("dist")), LABELS, config("dist"))
    assert loss.item() == pytest.approx(9 * (inter + intra))


@pytest.mark.parametrize("method", METHODS)
def test_two_teachers_that_agree_are_one(method: str) -> None:
    settings, logits = config(method, teacher_weights=(0.3, 0.7)), torch.tensor(ONE)
    loss = answers_loss(torch.tensor(STUDENT), combined([logits, logits], settings), LABELS, settings)
    alone = answers_loss(torch.tensor(STUDENT), logits, LABELS, settings)
    assert loss.item() == pytest.approx(alone.item())


def test_one_teacher_is_left_as_it_is_and_no_certainty_is_too_great() -> None:
    logits = torch.tensor(ONE)
    assert combined([logits], DistillConfig()) is logits
    sure = torch.tensor([[500.0, 0.0, -500.0]])
    settings = config(temperature=1.0)
    loss = answers_loss(torch.zeros(1, 3), combined([sure, sure.flip(1)], settings), torch.zeros(1).long(), settings)
    assert loss.item() == pytest.approx(np.log(3) - np.log(2), abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teachers": ("second", "second")}, "names one teacher twice"),
        ({"teacher_weights": (1.0,)}, "2 teachers, but 1 teacher_weights"),
        ({"teacher_weights": (1.0, 0.0)}, "greater than 0"),
        ({"teachers": ("second",), "teacher_weights": (2.0,)}, "among several teachers, and 'second' is the only one"),
        ({"teachers": ()}, "at least 1"),
    ],
)
def test_weights_are_one_for_each_teacher(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)


# -- training ------------------------------------------------------------------------------------------------------

IMAGES = GENERATOR.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
TARGETS = GENERATOR.integers(0, 4, 64)
TRAIN = image_inputs(IMAGES, TARGETS)
STEP = {"epochs": 1, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0, "warmup": 0, "clip": 0}
STEP |= {"schedule": "constant", "batch_size": 64}


def new(seed: int = 1, labels: tuple[str, ...] = tuple("abcd")) -> Classifier:
    return image_classifier(IMAGES, labels, seed, "builtin:mlp-16")


def test_an_update_follows_the_mean_of_both_answers(tmp_path: Path) -> None:
    """One plain step by hand, with answers that are known beforehand; in the second run they are asked for."""
    settings = config(alpha=1.0, temperature=2.0)
    student, expected, one, two = new(), new(), new(7).eval(), new(8).eval()
    teaching = Teaching(one, settings, TRAIN, ((two, TRAIN),))
    fit(student, FitConfig(**STEP), TRAIN, TRAIN, 5, tmp_path / "known", teaching)
    images = torch.from_numpy(IMAGES)
    with torch.no_grad():
        mean = (torch.softmax(one(images) / 2, dim=1) + torch.softmax(two(images) / 2, dim=1)) / 2
    loss = 4 * (mean * (mean.log() - torch.log_softmax(expected(images) / 2, dim=1))).sum() / 64
    loss.backward()  # type: ignore[no-untyped-call]
    for ours, theirs in zip(student.parameters(), expected.parameters(), strict=True):
        assert theirs.grad is not None
        assert torch.allclose(ours, theirs - 0.1 * 1.9 * theirs.grad, atol=1e-6)
    asked: list[Classifier] = []
    for teacher in (one, two):
        teacher.register_forward_pre_hook(lambda module, _: asked.append(module))
    augmented = FitConfig(**STEP, augment=AugmentConfig(shift=1))
    fit(new(), augmented, TRAIN, TRAIN, 5, tmp_path / "asked", Teaching(one, settings, TRAIN, ((two, TRAIN),)))
    assert asked == [one, two]


def test_a_second_teacher_of_other_labels_is_refused(tmp_path: Path) -> None:
    teaching = Teaching(new(7), config(), TRAIN, ((new(8, tuple("abcx")), TRAIN),))
    with pytest.raises(UserError, match="it does not know d; it knows x"):
        fit(new(), FitConfig(**STEP), TRAIN, TRAIN, 5, tmp_path, teaching)


@pytest.mark.parametrize("augment", [{"delete": 0.3}, {"mask_salient": 0.3}])
def test_each_teacher_reads_the_same_view_in_its_own_tokens(tmp_path: Path, augment: dict[str, float]) -> None:
    items = Items(list(TEXTS) * 4, np.arange(len(TEXTS) * 4) % 2)
    first = text_classifier(f"hf:{tiny_folder(tmp_path / 'first')}")
    second, student = text_classifier("builtin:textcnn"), text_classifier("builtin:textcnn", max_length=20)
    seen: dict[str, list[torch.Tensor]] = {"first": [], "second": []}
    for name, teacher in (("first", first), ("second", second)):
        teacher.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0]))
    splits = [TextInputs(items, model.preparer()) for model in (student, first, second)]
    settings = FitConfig(epochs=1, batch_size=8, augment=AugmentConfig(**augment))  # type: ignore[arg-type]
    teaching = Teaching(first, config(), splits[1], ((second, splits[2]),))
    fit(student, settings, splits[0], splits[0], 3, tmp_path / "out", teaching)
    assert len(seen["second"]) == 3
    assert [len(batch) for batch in seen["first"][-3:]] == [len(batch) for batch in seen["second"]]
    start = {int(batch[0, 0]) for batch in seen["first"][-3:]}
    assert start == {int(splits[1].gather(np.array([0]))[0, 0])}  # each text begins as its own tokenizer begins it
    assert all(int(batch.max()) < second.network.embedding.num_embeddings for batch in seen["second"])
