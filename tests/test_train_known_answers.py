"""A teacher's answers on disk: asked once where nothing changes, asked again as soon as anything does."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs
from text_models import TEXTS, text_classifier, tiny_folder

from train import known_answers as known
from train.augment import AugmentConfig
from train.classifier import Classifier
from train.distill import DistillConfig
from train.fit import fit
from train.fit_config import FitConfig
from train.inputs import Inputs, LazyImages, TextInputs
from train.sources import Items
from train.sources.base import Reading
from train.sources.embedded import read_digits
from train.teaching import Teaching

RANDOM = np.random.default_rng(0)
IMAGES, LABELS = RANDOM.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), RANDOM.integers(0, 3, 40)
TRAIN = image_inputs(IMAGES, LABELS)


def mlp(seed: int = 1) -> Classifier:
    return image_classifier(IMAGES, ("a", "b", "c"), seed, "builtin:mlp-8")


class Asked:
    """Counts the items that a teacher was asked about."""

    def __init__(self, teacher: Classifier) -> None:
        self.items = 0
        teacher.register_forward_hook(self._count)

    def _count(self, _: Any, inputs: tuple[torch.Tensor], __: Any) -> None:
        self.items += len(inputs[0])


def asked(folder: Path, teacher: Classifier, inputs: Inputs) -> tuple[int, np.ndarray]:
    counted = Asked(teacher)
    answers = Teaching(teacher, DistillConfig(), inputs, known=folder).answers()
    return counted.items, answers


def test_a_teacher_is_asked_once_about_the_same_items(tmp_path: Path) -> None:
    count, first = asked(tmp_path / "answers", mlp(), TRAIN)
    again, second = asked(tmp_path / "answers", mlp(), image_inputs(IMAGES.copy(), LABELS))
    assert (count, again) == (40, 0)
    assert np.array_equal(first, second)
    with torch.inference_mode():
        assert np.allclose(mlp().eval()(torch.from_numpy(IMAGES)).numpy(), second, atol=1e-6)
    assert len(list((tmp_path / "answers").iterdir())) == 1


def test_two_processes_that_ask_at_once_are_not_in_each_others_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = known.save_file
    waiting = [True]

    def while_another_saves(*arguments: Any) -> None:
        save(*arguments)
        if waiting.pop() if waiting else False:  # the other process asks the same, and is done first
            asked(tmp_path, mlp(), TRAIN)

    monkeypatch.setattr(known, "save_file", while_another_saves)
    asked(tmp_path, mlp(), TRAIN)
    assert asked(tmp_path, mlp(), TRAIN)[0] == 0
    assert len(list(tmp_path.iterdir())) == 1


def test_other_weights_or_items_are_asked_about(tmp_path: Path) -> None:
    asked(tmp_path, mlp(), TRAIN)
    changed = mlp()
    with torch.no_grad():
        next(changed.network.parameters()).view(-1)[0] += 1e-3
    other = IMAGES.copy()
    other[-1, -1, -1] ^= 1
    cases = [(changed, TRAIN), (mlp(), image_inputs(other, LABELS)), (mlp(), image_inputs(IMAGES[::-1], LABELS))]
    for teacher, inputs in cases:
        count, answers = asked(tmp_path, teacher, inputs)
        assert count == 40
        with torch.inference_mode():
            seen = torch.from_numpy(inputs.gather(np.arange(40)))
            assert np.allclose(teacher.eval()(seen).numpy(), answers, atol=1e-6)


@pytest.mark.parametrize("library", ["torch", "transformers", "torchvision"])
def test_what_another_library_computes_is_asked_about_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    asked(tmp_path, mlp(), TRAIN)
    monkeypatch.setattr(known, "version", lambda name: "99.0" if name == library else version(name))
    assert asked(tmp_path, mlp(), TRAIN)[0] == 40


def test_texts_and_images_on_disk_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    model = text_classifier(f"hf:{tiny_folder(tmp_path)}")
    other = [TEXTS[1], *TEXTS[1:]]

    def texts(content: list[bytes]) -> Inputs:
        return TextInputs(Items(content, np.zeros(len(content), np.int64)), model.preparer())

    assert texts(TEXTS).digest() == texts(list(TEXTS)).digest() != texts(other).digest()
    digits = read_digits("", Reading()).items
    preparer = mlp().preparer()
    some, same, others = (LazyImages(digits.take(np.arange(at, at + 5)), preparer) for at in (0, 0, 1))
    assert some.digest() == same.digest() != others.digest()


@pytest.mark.parametrize("damage", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_what_is_damaged_is_asked_about_again(tmp_path: Path, damage: bytes) -> None:
    _, first = asked(tmp_path, mlp(), TRAIN)
    file = next(tmp_path.iterdir())
    file.write_bytes(damage)
    count, second = asked(tmp_path, mlp(), TRAIN)
    assert count == 40
    assert np.array_equal(first, second)
    assert asked(tmp_path, mlp(), TRAIN)[0] == 0


def test_answers_to_views_that_change_are_not_kept(tmp_path: Path) -> None:
    for name, augment, kept in (("fixed", AugmentConfig(), 1), ("new", AugmentConfig(shift=1), 0)):
        teaching = Teaching(mlp(7), DistillConfig(), TRAIN, known=tmp_path / f"{name} answers")
        config = FitConfig(epochs=2, batch_size=16, augment=augment)
        fit(mlp(), config, TRAIN, TRAIN, 3, tmp_path / name, teaching)
        assert len(list((tmp_path / f"{name} answers").glob("*"))) == kept
