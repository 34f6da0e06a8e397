"""A transformer that is cut in steps: its shape after each, what stays, and steps that say nothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import image_models
import numpy as np
import pytest
import torch
from helpers import image_inputs
from PIL import Image
from test_train_models_narrow import parts_of, text_teacher
from text_models import FAMILIES, TEXTS, text_classifier, wanted

from serve.errors import UserError
from serve.runner import scores
from train.classifier import Classifier, ModelConfig, load_classifier, new_classifier, next_pruned, save_classifier
from train.draft import Wanted
from train.models import check_teacher
from train.models.layer_stack import layer_stack
from train.sources import Items
from train.torch_runner import TorchRunner

OPTIONS = {"heads": 2, "ffn_width": 24, "steps": 2}


def all_steps(model: str, options: dict[str, Any], asked: Wanted) -> list[Classifier]:
    """What is left after each step, the teacher first, where nothing is trained in between."""
    config = ModelConfig(model=model, options=options).checked(asked.task)
    assert asked.teacher is not None
    left = [asked.teacher]
    for step in range(1, options["steps"] + 1):
        left.append(next_pruned(left[-1], config, asked, step).eval())
    return left


def shape(classifier: Classifier) -> tuple[int, set[tuple[int, int]]]:
    """How many layers there are, and the widths that they have: heads and neurons."""
    layers = parts_of(classifier)
    return len(layers), {(layer.heads, layer.neurons) for layer in layers}


def shapes(classifier: Classifier) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in classifier.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shape_after_each_step_and_the_last_is_as_asked(tmp_path: Path, family: str) -> None:
    teacher = text_teacher(tmp_path / "model", family, layers=4)
    left = all_steps("teacher-layers:2", OPTIONS, wanted(teacher=teacher))
    # half way from 64 neurons to 24 are 44, which is no multiple of 8, and the wider of the two next ones is taken
    assert [shape(one) for one in left] == [(4, {(4, 64)}), (3, {(3, 48)}), (2, {(2, 24)})]
    at_once = text_classifier("teacher-layers:2", teacher=teacher, heads=2, ffn_width=24)
    draft = text_classifier("teacher-layers:2", teacher=teacher, **OPTIONS)
    assert shapes(left[-1]) == shapes(at_once) == shapes(draft)
    for at, one in enumerate(left[1:]):
        save_classifier(one, tmp_path / str(at))
        again = load_classifier(tmp_path / str(at))
        assert (scores(TorchRunner(again), TEXTS) == scores(TorchRunner(one), TEXTS)).all()


@pytest.mark.parametrize("family", ["vit", "deit"])
def test_image_transformers_too(tmp_path: Path, family: str) -> None:
    teacher = image_models.transformer(image_models.tiny_folder(tmp_path, family, layers=3))
    contents = [io.BytesIO() for _ in image_models.IMAGES]
    for image, content in zip(image_models.IMAGES, contents, strict=True):
        Image.fromarray(image).save(content, "PNG")
    items = Items([content.getvalue() for content in contents], np.array([0, 1, 2, 0, 1, 2]))
    asked = Wanted("image", teacher.spec.labels, 1, items, lambda _: image_inputs(image_models.IMAGES), teacher)
    options = {"heads": 1, "ffn_width": 16, "steps": 3}
    left = all_steps("teacher-layers:1", options, asked)
    assert [shape(one)[0] for one in left] == [3, 2, 2, 1]
    assert [shape(one)[1] for one in left] == [{(2, 64)}, {(2, 48)}, {(1, 32)}, {(1, 16)}]
    assert left[-1](torch.from_numpy(image_models.IMAGES)).shape == (6, 3)


@pytest.mark.parametrize(
    ("take", "after"),
    [
        ("every", [[0, 1, 2, 4, 5], [2, 4, 5], [2, 5]]),
        ("spread", [[0, 1, 3, 4, 5], [0, 1, 5], [0, 5]]),
        ("first", [[0, 1, 2, 3, 4], [0, 1, 2], [0, 1]]),
        ("last", [[1, 2, 3, 4, 5], [3, 4, 5], [4, 5]]),
        ([1, 2], [[0, 1, 2, 4, 5], [0, 1, 2], [1, 2]]),
    ],
)
def test_layers_go_a_few_at_a_time_and_those_that_are_asked_for_stay(
    tmp_path: Path, take: Any, after: list[list[int]]
) -> None:
    teacher = text_teacher(tmp_path, "bert", layers=6)
    left = all_steps("teacher-layers:2", {"take": take, "steps": 3}, wanted(teacher=teacher))
    theirs, stack = teacher.state_dict(), layer_stack(teacher.state_dict())
    name = "attention.self.query.weight"
    for one, expected in zip(left[1:], after, strict=True):
        ours = [one.state_dict()[f"{stack}.{at}.{name}"] for at in range(shape(one)[0])]
        assert len(ours) == len(expected)
        assert all(torch.equal(mine, theirs[f"{stack}.{at}.{name}"]) for mine, at in zip(ours, expected, strict=True))


@pytest.mark.parametrize("importance", ["taylor", "magnitude"])
def test_what_matters_is_looked_for_anew_in_what_the_step_before_left(tmp_path: Path, importance: str) -> None:
    teacher = text_teacher(tmp_path, "bert")
    options = {"heads": 2, "ffn_width": 24, "steps": 2, "importance": importance}
    config = ModelConfig(model="teacher-layers:2", options=options)
    asked = wanted(teacher=teacher)
    recovered = next_pruned(teacher, config, asked, 1).eval()
    assert shape(recovered) == (2, {(3, 48)})
    with torch.no_grad():  # as if training had made one head and every second neuron of what was kept worth nothing
        for layer in parts_of(recovered):
            layer.after_heads.weight[:, :8] = 0
            layer.after_neurons.weight[:, ::2] = 0
            for module in layer.into_heads:
                module.weight[:8], module.bias[:8] = 0, 0
            layer.into_neurons.weight[::2], layer.into_neurons.bias[::2] = 0, 0
    smallest = next_pruned(recovered, config, asked, 2).eval()
    assert shape(smallest) == (2, {(2, 24)})
    assert np.allclose(scores(TorchRunner(smallest), TEXTS), scores(TorchRunner(recovered), TEXTS), atol=1e-6)


def test_the_same_seed_cuts_the_same(tmp_path: Path) -> None:
    teacher = text_teacher(tmp_path, "gpt2", layers=3)
    options = OPTIONS | {"importance_items": 3}
    one, other = (all_steps("teacher-layers:2", options, wanted(teacher=teacher))[-1].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_dropout_is_the_students_from_the_first_step_on(tmp_path: Path) -> None:
    teacher = text_teacher(tmp_path, "bert", layers=3)
    left = all_steps("teacher-layers:1", {"steps": 2, "dropout": 0.3}, wanted(teacher=teacher))
    assert [one.spec.network.config["hidden_dropout_prob"] for one in left] == [0.1, 0.3, 0.3]


@pytest.mark.parametrize(
    ("name", "options", "said", "hint"),
    [
        ("3", {"steps": 2}, "steps = 2 from 3 layers to 3 layers, but step 1 would cut nothing", "leave out steps"),
        ("2", {"steps": 2}, "step 1 would cut nothing", "leave out steps"),
        ("1", {"steps": 5}, "from 3 layers to 1 layers, but step 1 would cut nothing", "at most steps = 2"),
        ("3", {"steps": 3, "heads": 4}, "from 3 layers, 4 heads to 3 layers, 4 heads", "leave out steps"),
        ("3", {"steps": 9, "ffn_width": 40}, "64 neurons to 3 layers, 40 neurons, but step", "at most steps = 3"),
    ],
)
def test_steps_in_which_nothing_is_cut_are_refused(
    tmp_path: Path, name: str, options: dict[str, Any], said: str, hint: str
) -> None:
    teacher = text_teacher(tmp_path, "bert", layers=3)
    with pytest.raises(UserError) as told:
        check_teacher(f"teacher-layers:{name}", options, teacher)
    assert said in told.value.message
    assert hint in told.value.hint


def test_as_many_steps_as_there_is_something_to_cut_are_taken(tmp_path: Path) -> None:
    teacher = text_teacher(tmp_path, "bert", layers=3)
    for name, options in (("1", {"steps": 2}), ("3", {"steps": 3, "ffn_width": 40}), ("3", {"steps": 2, "heads": 2})):
        check_teacher(f"teacher-layers:{name}", options, teacher)


def test_epochs_between_steps_need_steps() -> None:
    with pytest.raises(UserError, match="steps = 1"):
        ModelConfig(model="teacher-layers:1", options={"recovery_epochs": 2}).checked("text")
    with pytest.raises(UserError, match="does not take option steps = 0"):
        ModelConfig(model="teacher-layers:1", options={"steps": 0}).checked("text")


def test_a_teacher_is_left_as_it_was(tmp_path: Path) -> None:
    teacher = text_teacher(tmp_path, "bert")
    before = scores(TorchRunner(teacher), TEXTS)
    config = ModelConfig(model="teacher-layers:1", options={"heads": 2, "steps": 2})
    asked = wanted(teacher=teacher)
    new_classifier(config, asked)
    next_pruned(teacher, config, asked, 1)
    assert (scores(TorchRunner(teacher), TEXTS) == before).all()
