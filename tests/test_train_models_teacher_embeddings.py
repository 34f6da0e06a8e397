"""A TextCNN that starts from the word embeddings of its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from text_models import FAMILIES, TEXTS, text_classifier, tiny_folder
from tiny_run import content, run_content, train_content

from compress.recipe_file import parse_recipe
from serve.errors import UserError
from serve.runner import scores
from train.classifier import Classifier, load_classifier, save_classifier
from train.torch_runner import TorchRunner

CHINESE = Path(__file__).parent / "data" / "chinese.csv"


def student_of(teacher: Classifier, **options: Any) -> Classifier:
    return text_classifier("builtin:textcnn", teacher=teacher, embeddings="teacher", filters=5, **options)


def table(classifier: Classifier) -> np.ndarray:
    network: Any = classifier.network
    embeddings = network.model.get_input_embeddings() if hasattr(network, "model") else network.embedding
    return embeddings.weight.detach().numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_it_takes_the_teachers_table_and_tokenizer(tmp_path: Path, family: str) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path / 'teacher', family)}", max_length=12)
    student = student_of(teacher)
    assert (table(student) == table(teacher)).all()
    assert student.preparer().fingerprint() == teacher.preparer().fingerprint()
    assert student.files == teacher.files
    save_classifier(student, tmp_path / "student")
    again = load_classifier(tmp_path / "student")
    assert (scores(TorchRunner(again), TEXTS) == scores(TorchRunner(student), TEXTS)).all()
    assert (tmp_path / "student" / "tokenizer.json").read_bytes() == teacher.files["tokenizer.json"]


def test_it_trains_a_table_of_its_own(tmp_path: Path) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path)}")
    student, before = student_of(teacher), table(teacher).copy()
    weight = student.network.embedding.weight
    assert weight.requires_grad
    with torch.no_grad():
        weight.add_(1.0)
    assert (table(teacher) == before).all()


@pytest.mark.parametrize("width", [1, 8, 20])
def test_a_narrower_table_keeps_as_much_as_a_truncated_svd(tmp_path: Path, width: int) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path)}")
    narrow = table(student_of(teacher, embedding=width))
    assert narrow.shape == (table(teacher).shape[0], width)
    left, values, _ = np.linalg.svd(table(teacher).astype(np.float64), full_matrices=False)
    kept = left[:, :width] * values[:width]
    assert narrow @ narrow.T == pytest.approx(kept @ kept.T, abs=1e-4)  # the dot products between all tokens


def test_a_teacher_without_layers_has_embeddings_too() -> None:
    teacher = text_classifier("builtin:textcnn", embedding=8, lowercase=False)
    student = student_of(teacher, max_length=7)
    assert (table(student) == table(teacher)).all()
    assert student.spec.preprocessing.max_length == 7
    assert teacher.spec.preprocessing.max_length == 128
    assert (table(student_of(student)) == table(teacher)).all()


def test_what_cannot_be_is_told(tmp_path: Path) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path)}")
    with pytest.raises(UserError, match="embedding = 33 is wider than") as refused:
        student_of(teacher, embedding=33)
    assert "32" in refused.value.hint
    for useless in ({"vocabulary": 500}, {"lowercase": True}):
        with pytest.raises(UserError, match=f"options.{next(iter(useless))} would have no effect"):
            student_of(teacher, **useless)
    with pytest.raises(UserError, match="needs a teacher of texts"):
        text_classifier("builtin:textcnn", embeddings="teacher")
    recipe = content() | {"task": "text", "students": []}
    recipe["teacher"] = {"model": "builtin:textcnn", "options": {"embeddings": "teacher"}}
    with pytest.raises(UserError, match="cannot be the teacher"):
        parse_recipe(recipe, "recipe.toml")


def test_a_package_holds_the_teachers_tokenizer_and_another_teacher_makes_another_student(tmp_path: Path) -> None:
    recipe = content()
    fit = {"epochs": 1, "batch_size": 8}
    options = {"embeddings": "teacher", "embedding": 4, "filters": 3}
    recipe |= {
        "task": "text",
        "data": {"source": f"csv:{CHINESE}", "calibration": 8, "validation": 8, "test": 12},
        "teacher": {"model": "builtin:textcnn", "options": {"embedding": 8, "vocabulary": 500}, "fit": fit},
        "students": [{"name": "small", "model": "builtin:textcnn", "options": options, "fit": fit}],
        "quantize": {"precisions": ["fp32"]},
    }
    run_content(recipe, tmp_path / "run", memory=False)
    packages = tmp_path / "run" / "packages"
    tokenizers = [(packages / f"{name}-fp32" / "tokenizer.json").read_bytes() for name in ("teacher", "small")]
    assert tokenizers[0] == tokenizers[1]
    first = table(load_classifier(tmp_path / "run" / "students" / "small"))
    recipe["teacher"]["fit"] = {**fit, "epochs": 2}
    train_content(recipe, tmp_path / "run")
    assert not np.array_equal(first, table(load_classifier(tmp_path / "run" / "students" / "small")))
