"""A student with fewer heads and neurons, from recipe to report; and what cannot be, told before any training."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from test_compress_as_it_is import recipe_of
from text_models import tiny_folder
from tiny_run import run_content, train_content

from compress.recipe_file import parse_recipe
from compress.stages import training
from serve.errors import UserError
from train.fit_result import FitResult

NARROW = {"heads": 1, "ffn_width": 24, "importance_items": 30}


def recipe(tmp_path: Path, **options: Any) -> dict[str, Any]:
    teacher = tiny_folder(tmp_path / "model", labels=("pos", "neg"))
    content = recipe_of(tmp_path, f"hf:{teacher}") | {
        "quantize": {"precisions": ["fp32"]},
        "graph": {"rewrites": "none"},
    }
    student = {"name": "narrow", "model": "teacher-layers:2", "options": options, "fit": {"epochs": 1}}
    content["students"] = [{**student, "prune": {"vocabulary": "seen"}}]
    return content


def test_a_narrow_student_goes_all_the_way(tmp_path: Path) -> None:
    content = recipe(tmp_path, **NARROW)
    ran = run_content(content, tmp_path / "run", memory=False)
    by_id = {variant.id: variant for variant in ran.report.variants}
    assert by_id["narrow-fp32"].macs < by_id["teacher-fp32"].macs
    assert by_id["narrow-fp32"].size_bytes < by_id["teacher-fp32"].size_bytes
    spec = json.loads((tmp_path / "run" / "students" / "narrow" / "spec.json").read_text())
    assert spec["network"]["widths"] == {"heads": 1, "ffn": 24}
    assert run_content(content, tmp_path / "run", memory=False).console.redone == set()


def test_what_the_teacher_has_not_is_told_before_it_is_trained(tmp_path: Path) -> None:
    content = recipe(tmp_path, heads=3)
    with pytest.raises(UserError, match=r"heads = 3, but the teacher .* has 2"):
        run_content(content, tmp_path / "run", memory=False)
    assert not (tmp_path / "run" / "teacher").exists()


def test_a_width_that_the_runtime_is_not_made_for_is_refused_when_the_recipe_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no multiple of 8"):
        parse_recipe(recipe(tmp_path, ffn_width=25), "test")


def test_steps_without_training_are_refused_when_the_recipe_is_read(tmp_path: Path) -> None:
    content = recipe(tmp_path, heads=1, steps=2)
    parse_recipe(content, "test")
    content["students"][0]["fit"] = {"epochs": 0}
    with pytest.raises(UserError, match="must be trained again then"):
        parse_recipe(content, "test")
    content["students"][0]["fit"] = {"epochs": 3, "stack": {"layers": [1], "epochs": [1]}}
    with pytest.raises(UserError, match=r"learned between the steps of options\.steps is lost"):
        parse_recipe(content, "test")


def test_steps_that_cut_nothing_are_told_before_the_teacher_is_trained(tmp_path: Path) -> None:
    content = recipe(tmp_path, heads=1, steps=3)
    with pytest.raises(UserError, match="from 2 layers, 2 heads to 2 layers, 1 heads, but step 1 would cut nothing"):
        run_content(content, tmp_path / "run", memory=False)
    assert not (tmp_path / "run" / "teacher").exists()


def trained_in(content: dict[str, Any], folder: Path, stop_before: str = "") -> list[tuple[str, int]]:
    """What a run trains, and in how many epochs, until all is or the model to stop before would be."""
    trained: list[tuple[str, int]] = []

    def watched(run: Any, job: Any, classifier: Any, config: Any, *others: Any, **named: Any) -> FitResult:
        if job.model == stop_before:
            raise KeyboardInterrupt
        trained.append((job.model, config.epochs))
        return train(run, job, classifier, config, *others, **named)

    train = training.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", watched)
        with pytest.raises(KeyboardInterrupt) if stop_before else nullcontext():
            train_content(content, folder)
    return trained


def test_in_steps_with_the_teacher_and_stopped_in_between_it_ends_at_the_same_weights(tmp_path: Path) -> None:
    content = recipe(tmp_path, **NARROW, steps=2, recovery_epochs=2)
    content["students"][0] |= {"distill": {"alpha": 0.8}, "control": False}
    _, results = train_content(content, tmp_path / "run")
    student = tmp_path / "run" / "students" / "narrow"
    assert json.loads((student / "spec.json").read_text())["network"]["widths"] == {"heads": 1, "ffn": 24}
    (note,) = [note for note in results["narrow"].notes if note.startswith("pruned in 2 steps to ")]
    assert "with 2 epochs of training after each but the last (validation " in note
    assert not list(student.glob("step-*"))

    assert trained_in(content, tmp_path / "other", "narrow") == [("teacher", 0), ("narrow+step-1", 2)]
    assert trained_in(content, tmp_path / "other") == [("narrow", 1)]
    other = tmp_path / "other" / "students" / "narrow"
    assert (other / "model.safetensors").read_bytes() == (student / "model.safetensors").read_bytes()
