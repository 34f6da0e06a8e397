from __future__ import annotations

from pathlib import Path

import pytest
from text_models import TEXTS, text_classifier

from serve.errors import UserError
from serve.runner import scores
from train.classifier import save_classifier
from train.models.saved import check
from train.torch_runner import TorchRunner


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name in ("teacher", "students/small"):
        classifier = text_classifier("builtin:textcnn", ("a", "b", "c"), embedding=8, filters=4 + len(name))
        save_classifier(classifier, tmp_path / name)
    return tmp_path


def test_a_run_names_its_teacher_and_a_path_its_student(run: Path) -> None:
    teacher, student = (text_classifier(f"run:{run}{inside}", ("a", "b", "c")) for inside in ("", "/students/small"))
    assert teacher.params < student.params
    assert teacher.untrained is None
    assert teacher.spec.network.name == "textcnn"
    assert "tokenizer.json" in teacher.files


def test_labels_in_another_order_are_put_into_ours(run: Path) -> None:
    same, other = (text_classifier(f"run:{run}", labels) for labels in (("a", "b", "c"), ("c", "a", "b")))
    expected = scores(TorchRunner(same), TEXTS)[:, [2, 0, 1]]
    assert scores(TorchRunner(other), TEXTS) == pytest.approx(expected, abs=1e-6)
    assert other.spec.labels == ("c", "a", "b")


def test_other_labels_are_refused_with_the_difference(run: Path) -> None:
    with pytest.raises(UserError, match="does not know d; it knows a, c besides"):
        text_classifier(f"run:{run}", ("b", "d"))


def test_what_is_no_run_of_this_task_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="classifies texts, the recipe's task is image"):
        check(str(run), {}, "image")
    with pytest.raises(UserError, match="takes no options"):
        check(str(run), {"max_length": 3}, "text")
    (run / "teacher" / "spec.json").unlink()
    with pytest.raises(UserError, match="no trained model") as refused:
        check(str(run), {}, "text")
    assert refused.value.hint.endswith("/students/small")
