"""A student with fewer channels and blocks, in steps with training in between, from recipe to report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_run import content, run_content

from compress.recipe_file import parse_recipe
from compress.stages import training
from serve.errors import UserError
from train.fit_result import FitResult

OPTIONS = {"blocks": 2, "steps": 2, "recovery_epochs": 2, "importance_items": 40}
FIT = {"epochs": 1, "batch_size": 128, "learning_rate": 5e-3}


def recipe(teacher: str = "builtin:resnet14", share: str = "0.5", **student: Any) -> dict[str, Any]:
    narrow = {"name": "narrow", "model": f"teacher-channels:{share}", "fit": FIT, "distill": {"alpha": 0.8}}
    changed = content() | {"teacher": {"model": teacher, "fit": FIT}, "students": [narrow | student]}
    changed["data"]["train"] = 256
    return changed | {"quantize": {"precisions": ["fp32", "int8-static"]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("channels")


def test_pruned_in_steps_from_recipe_to_report(folder: Path) -> None:
    ran = run_content(recipe(options=OPTIONS, control=False), folder, memory=False)
    by_id = {variant.id: variant for variant in ran.report.variants}
    assert by_id["narrow-fp32"].macs < 0.4 * by_id["teacher-fp32"].macs
    assert by_id["narrow-fp32"].parity.disagreements == 0  # the graph and the network say the same
    assert by_id["narrow-int8-static"].size_bytes < by_id["teacher-int8-static"].size_bytes
    spec = json.loads((folder / "students" / "narrow" / "spec.json").read_text())["network"]["pruned"]
    assert len(spec["removed"]) == 4
    assert {shape[0] for name, shape in spec["shapes"].items() if name != "head.3.weight"} == {8, 16, 32}
    left = sorted(path.name for path in (folder / "students" / "narrow").iterdir())
    assert left == ["model.safetensors", "spec.json"]
    record = json.loads((folder / "run.json").read_text())["stages"]["students/narrow"]["result"]
    assert any(note.startswith("pruned in 2 steps to ") and "validation" in note for note in record["notes"])


def test_nothing_is_done_again(folder: Path) -> None:
    assert run_content(recipe(options=OPTIONS, control=False), folder, memory=False).console.redone == set()


def test_each_step_has_the_lesson_and_is_not_repeated_when_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lessons: list[tuple[str, int, bool]] = []
    stop_before, stop_after = "narrow", ""

    def watched(run: Any, job: Any, classifier: Any, config: Any, place: Path, *taught: Any, **named: Any) -> FitResult:
        if job.model == stop_before:
            raise KeyboardInterrupt
        lessons.append((job.model, config.epochs, any(one is not None for one in taught)))
        result = train(run, job, classifier, config, place, *taught, **named)
        if job.model == stop_after:
            raise KeyboardInterrupt
        return result

    train = training.train
    monkeypatch.setattr(training, "train", watched)
    with pytest.raises(KeyboardInterrupt):
        run_content(recipe(options=OPTIONS), tmp_path, memory=False)
    assert lessons == [("teacher", 1, False), ("narrow+step-1", 2, True)]
    lessons.clear()
    stop_before, stop_after = "", "narrow-alone"
    with pytest.raises(KeyboardInterrupt):
        run_content(recipe(options=OPTIONS), tmp_path, memory=False)
    # the control goes the same way without the teacher
    assert lessons == [("narrow", 1, True), ("narrow-alone+step-1", 2, False), ("narrow-alone", 1, False)]


def test_what_the_teacher_has_not_is_told_before_it_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 change the size of the maps"):
        run_content(recipe(options={"blocks": 1}), tmp_path, memory=False)
    with pytest.raises(UserError, match="no layer of the teacher"):
        run_content(recipe(share="0.9", options={"round_to": 64}), tmp_path, memory=False)
    assert not (tmp_path / "teacher").exists()


def test_what_is_cut_must_be_trained() -> None:
    with pytest.raises(UserError, match="must be trained again then"):
        parse_recipe(recipe(fit={"epochs": 0}), "test")


def test_a_student_that_is_pruned_cannot_be_the_teacher() -> None:
    with pytest.raises(UserError, match="cannot be the teacher"):
        parse_recipe(recipe("teacher-channels:0.5"), "test")
