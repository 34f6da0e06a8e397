"""A model that is trained already: evaluated, quantized and packaged without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from text_models import text_classifier, tiny_folder
from tiny_run import PRECISIONS, content, run_content, train_content

from compress.recipe_file import parse_recipe
from serve.errors import UserError
from serve.predictor import Predictor
from serve.runner import scores
from train.torch_runner import TorchRunner

WORDS = ("good", "great", "fun", "best", "bad", "boring", "not good", "worst")


def recipe_of(folder: Path, model: str) -> dict[str, Any]:
    """Five hundred texts, and no epoch of training."""
    rows = [f"a {WORDS[at % 8]} film {at},{'pos' if at % 2 else 'neg'}" for at in range(500)]
    (folder / "data.csv").write_text("\n".join(["text,label", *rows]))
    recipe = content()
    del recipe["students"]
    return recipe | {
        "task": "text",
        "data": {"source": f"csv:{folder / 'data.csv'}", "calibration": 40, "validation": 60, "test": 100},
        "teacher": {"model": model, "fit": {"epochs": 0}},
        "accept": {"max_drop_points": 60.0},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("model"), labels=("pos", "neg"), layers=1)


def test_a_tuned_model_is_measured_quantized_and_packaged_as_it_is(folder: Path, tmp_path: Path) -> None:
    ran = run_content(recipe_of(tmp_path, f"hf:{folder}"), tmp_path / "run", memory=False)
    assert {variant.id for variant in ran.report.variants} == {"teacher-torch", *(f"teacher-{p}" for p in PRECISIONS)}
    assert ran.report.choice.id.startswith("teacher-")
    assert ran.report.training == {"teacher": []}
    assert "<svg" in (tmp_path / "run" / "report.html").read_text()
    items = [b"a good film", b"bad , boring", b"great fun " * 5]
    ours = scores(Predictor.load(tmp_path / "run" / "packages" / "teacher-fp32"), items)
    theirs = scores(TorchRunner(text_classifier(f"hf:{folder}")), items)
    assert ours == pytest.approx(theirs, abs=1e-4)

    again = run_content(recipe_of(tmp_path, f"hf:{folder}"), tmp_path / "run", memory=False)
    assert again.console.redone == set()

    recipe = recipe_of(tmp_path, f"run:{tmp_path / 'run'}") | {"quantize": {"precisions": ["fp32"]}}
    from_run = run_content(recipe, tmp_path / "second", memory=False)
    assert from_run.report.variants[0].accuracy == ran.report.variants[0].accuracy


def test_other_weights_under_the_same_name_are_noticed(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", labels=("pos", "neg"), layers=1)
    recipe = recipe_of(tmp_path, f"hf:{folder}")
    train_content(recipe, tmp_path / "run")
    assert train_content(recipe, tmp_path / "run")[0].redone == set()
    tiny_folder(tmp_path / "model", labels=("neg", "pos"), layers=1)
    assert train_content(recipe, tmp_path / "run")[0].redone == {"teacher"}


def test_a_model_that_was_never_trained_is_refused(folder: Path, tmp_path: Path) -> None:
    bare = tiny_folder(tmp_path / "bare")
    for model, why in ((f"hf:{bare}", "no classification head"), ("builtin:textcnn", "its weights are new")):
        with pytest.raises(UserError, match=f"never trained for these data: .*{why}"):
            run_content(recipe_of(tmp_path, model), tmp_path / "run")
    other = tiny_folder(tmp_path / "other", labels=("a", "b"))
    with pytest.raises(UserError, match="its head is for the labels a, b, the data has neg, pos") as refused:
        run_content(recipe_of(tmp_path, f"hf:{other}"), tmp_path / "run")
    assert "id2label in config.json" in refused.value.hint


def test_a_run_is_checked_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained model in"):
        parse_recipe(recipe_of(tmp_path, f"run:{tmp_path}"), "test")
