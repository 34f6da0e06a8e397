from __future__ import annotations

from pathlib import Path

import pytest
import torch
from text_models import FAMILIES, TEXTS, text_classifier, tiny_folder, wanted

from serve.errors import UserError
from serve.runner import scores
from train.classifier import ModelConfig, load_classifier, new_classifier, save_classifier
from train.models.layer_stack import layer_stack
from train.models.teacher_layers import every, spread
from train.torch_runner import TorchRunner


def test_layers_are_the_first_the_last_and_evenly_between() -> None:
    assert spread(6, 12) == [0, 2, 4, 7, 9, 11]  # as DistilBERT
    assert spread(3, 6) == [0, 2, 5]
    assert spread(1, 6) == [0]
    assert spread(4, 4) == [0, 1, 2, 3]


def test_every_second_or_third_layer_is_the_last_of_its_run() -> None:
    assert every(3, 6) == [1, 3, 5]
    assert every(2, 6) == [2, 5]
    assert every(4, 6) == [0, 2, 3, 5]
    assert every(1, 6) == [5]
    assert every(6, 6) == [0, 1, 2, 3, 4, 5]
    assert every(0, 6) == []  # of layers that none stays longer of


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_has_the_teachers_layers_and_all_the_rest_of_it(tmp_path: Path, family: str) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path / family, family, layers=4)}")
    student = text_classifier("teacher-layers:2", teacher=teacher)
    ours, theirs = student.state_dict(), teacher.state_dict()
    stack = layer_stack(theirs)
    for name, tensor in ours.items():
        source = name  # the second and the fourth of four
        if name.startswith(f"{stack}."):
            source = name.replace(f"{stack}.1.", f"{stack}.3.").replace(f"{stack}.0.", f"{stack}.1.")
        assert torch.equal(tensor, theirs[source]), name
    assert student.params < teacher.params
    assert student.files == teacher.files
    save_classifier(student, tmp_path / "student")
    again = load_classifier(tmp_path / "student")
    assert (scores(TorchRunner(again), TEXTS) == scores(TorchRunner(student), TEXTS)).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_all_layers_are_the_teacher_itself(tmp_path: Path, family: str) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path, family, layers=3)}")
    student = text_classifier("teacher-layers:3", teacher=teacher)
    assert (scores(TorchRunner(student), TEXTS) == scores(TorchRunner(teacher), TEXTS)).all()


def test_a_student_and_its_control_start_from_the_same_weights(tmp_path: Path) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path)}")
    one, other = (text_classifier("teacher-layers:1", teacher=teacher) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_what_cannot_be_is_told(tmp_path: Path) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path)}")
    with pytest.raises(UserError, match="has 2 layers") as refused:
        text_classifier("teacher-layers:3", teacher=teacher)
    assert refused.value.hint == "give 1 to 2 layers"
    with pytest.raises(UserError, match="cannot be the teacher"):
        text_classifier("teacher-layers:1")
    for name in ("0", "-1", "x", "3x"):
        with pytest.raises(UserError, match="no number of layers"):
            text_classifier(f"teacher-layers:{name}", teacher=teacher)
    with pytest.raises(UserError, match="does not take option max_length"):
        text_classifier("teacher-layers:1", teacher=teacher, max_length=8)
    with pytest.raises(UserError, match="take lists 2 layers"):
        text_classifier("teacher-layers:1", teacher=teacher, take=[0, 1])
    for wrong in ([1, 0], [0, 2], [1, 1]):
        with pytest.raises(UserError, match="are no layers of the teacher's 2"):
            text_classifier("teacher-layers:2", teacher=teacher, take=wrong)


@pytest.mark.parametrize(("take", "kept"), [("first", [0, 1]), ("last", [2, 3]), ("every", [1, 3]), ([1, 2], [1, 2])])
def test_the_layers_that_are_asked_for_are_taken(tmp_path: Path, take: str | list[int], kept: list[int]) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path, layers=4)}")
    ours = text_classifier("teacher-layers:2", teacher=teacher, take=take).state_dict()
    theirs = teacher.state_dict()
    stack = layer_stack(theirs)
    inside = [name for name in ours if name.startswith(f"{stack}.")]
    assert len(inside) > 10
    for name in inside:
        place, rest = name.removeprefix(f"{stack}.").split(".", 1)
        assert torch.equal(ours[name], theirs[f"{stack}.{kept[int(place)]}.{rest}"]), name


def test_a_builtin_teacher_has_no_layers_to_take() -> None:
    import numpy as np
    from helpers import image_classifier

    images = np.zeros((2, 8, 8, 1), np.uint8)
    teacher = image_classifier(images, ("a", "b"))
    with pytest.raises(UserError, match="no transformer layers"):
        new_classifier(ModelConfig(model="teacher-layers:1").checked("text"), wanted(teacher=teacher))
