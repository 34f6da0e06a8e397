"""`limbeck optimize` on the digits, from the recipe to the verdict on test; stopped, gone on with, asked for more."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from tiny_run import Recorder, made_up_memory, run_content

from compress import cli
from compress.optimize import bench, command
from compress.optimize.command import Asked, Outcome, optimize
from compress.optimize.config import OptimizeConfig
from compress.optimize.direct import direct_content
from compress.optimize.records import OPTIMIZE_JSON, Record
from compress.optimize.students import own_students
from compress.quantize import providers
from compress.recipe import Recipe
from compress.recipe_file import load_recipe, parse_recipe
from compress.stages import measuring
from serve.errors import UserError
from serve.locate import find_package
from serve.package import read_serving
from train.trainer import ClassifierTrainer

RECIPE = """
name = "tiny"
seed = 3

[data]
source = "digits"
test = 0.3
validation = 0.15
calibration = 50

[teacher]
model = "builtin:cnn-8x16"
options = { hidden = 32 }
fit = { epochs = 3, batch_size = 64, learning_rate = 5e-3 }

[quantize]
precisions = ["fp32", "int8-static"]

[evaluate]
batch_sizes = [1]
latency_samples = 20

[accept]
max_drop_points = 90.0

[optimize]
precisions = ["fp32", "int8-static"]
graph_levels = ["all"]
latency_samples = 20
[[optimize.students]]
name = "cnn"
model = ["builtin:cnn-2", "builtin:cnn-4"]
options = { hidden = 8 }
fit = { epochs = 2, batch_size = 64, learning_rate = 5e-3 }
distill = { temperature = 3.0, alpha = 0.8 }
"""


ODD = {"name": "odd", "model": "builtin:cnn-2"}
MODELS = [ODD["model"], "builtin:mlp-8"]
HIDDEN, MAPS = ([{"loss": loss, "weight": 1.0}] for loss in ("hidden-states", "attention-maps"))


class Tells(Recorder):
    """A console that keeps what it was told."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class StopError(Exception):
    """In the place of kill -9."""


def record_in(folder: Path) -> Record:
    return Record.model_validate_json((folder / OPTIMIZE_JSON).read_text())


@pytest.fixture(autouse=True, scope="module")
def _memory() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "measure_memory", made_up_memory)
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def found(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A search that was stopped once in its middle, and gone on with."""
    folder = tmp_path_factory.mktemp("search") / "tiny-optimize"

    class Stops(Tells):
        def say(self, text: str) -> None:
            super().say(text)
            if "cnn" in text and "trial 3" in text:
                raise StopError

    with pytest.raises(StopError):
        optimize(Asked(recipe, out=folder), Stops())
    models = [trial.model for trial in record_in(folder).trials]
    assert models[:2] == ["teacher", "teacher"]
    assert models[2] in ("cnn-2", "cnn-4")  # whichever was faster
    assert len(models) == 3
    return optimize(Asked(recipe, out=folder), Tells())


@pytest.fixture
def copy(found: Outcome, tmp_path: Path) -> Path:
    return Path(shutil.copytree(found.folder, tmp_path / "copy"))


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever trains from here on is an error; a student that was left in the middle may be looked at again."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was trained again")

    monkeypatch.setattr(ClassifierTrainer, "training_step", refuse)


def test_a_search_leaves_a_run_that_can_be_served(found: Outcome) -> None:
    record, folder = record_in(found.folder), found.folder
    assert found.report.selected == record.selected == record.choice
    assert find_package(folder) == (folder / "packages" / str(record.choice)).resolve()
    assert found.report.choice.reason == record.choice_reason
    assert not found.report.choice.after_test
    chosen = next(trial for trial in record.trials if trial.id == record.choice)
    serving = read_serving(folder / "packages" / chosen.id)
    assert (serving.threads, serving.graph_level) == (chosen.threads, chosen.graph_level)


def test_every_trial_has_its_outcome_and_its_cost(found: Outcome) -> None:
    complete = [trial for trial in found.record.trials if trial.state == "complete"]
    assert {trial.id for trial in complete} >= {"teacher-fp32", "teacher-int8-static"}
    for trial in complete:
        assert trial.drop_low is not None
        assert trial.drop_high is not None
        assert trial.drop_points is not None
        assert trial.drop_low <= trial.drop_points <= trial.drop_high
        assert trial.feasible == (trial.why == "within every limit on validation")
        assert trial.cost > 0
    trained = [trial for trial in complete if "training" in trial.seconds]
    assert len({trial.model for trial in trained}) == len(trained)  # a model's first trial carries it
    assert all(trial.why for trial in found.record.trials)


def test_the_page_shows_every_trial(found: Outcome) -> None:
    page = (found.folder / "optimize.html").read_text()
    assert all(trial.id in page for trial in found.record.trials)
    assert found.report.verdict in page
    assert "Accuracy on validation, %" in page
    assert "//" not in page.replace("http://www.w3.org", "")  # it asks for nothing from the network


def test_the_same_command_does_nothing_again(
    found: Outcome, copy: Path, recipe: Path, untrained: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    console, looked_at = Tells(), []
    monkeypatch.setattr(bench, "check_label_map", lambda *asked: looked_at.append(asked[-1]))
    again = optimize(Asked(recipe, out=copy), console)
    assert looked_at == ["builtin:cnn-8x16"]  # before the search, not only in the pass after it
    assert console.redone == set()
    assert [trial.model_dump(exclude={"seconds"}) for trial in again.record.trials] == [
        trial.model_dump(exclude={"seconds"}) for trial in found.record.trials
    ]
    assert again.report.selected == found.report.selected


def test_the_resolved_recipe_makes_the_choice_from_what_is_there(found: Outcome, copy: Path, untrained: None) -> None:
    resolved = load_recipe(found.folder / "optimized.toml")
    assert resolved.optimize is not None
    assert resolved.optimize.students is not None
    assert [space.name for space in resolved.optimize.students] == ["cnn"]
    ran = run_content(tomllib.loads((found.folder / "optimized.toml").read_text()), copy)
    assert ran.console.redone <= {"choice"}
    assert str(found.record.choice) in {variant.id for variant in ran.report.variants}


def test_other_limits_need_no_training(copy: Path, recipe: Path, untrained: None) -> None:
    limits = {"max_size_mb": 1e-6, "max_drop_points": 90.0}
    outcome = optimize(Asked(recipe, out=copy, accept=limits), Tells())
    assert outcome.record.selected is None
    assert outcome.record.choice == outcome.record.nearest == "teacher-int8-static"
    assert "found nothing feasible" in str(outcome.record.choice_reason)
    assert outcome.report.choice.after_test  # this folder's test split was scored before
    left = [trial for trial in outcome.record.trials if trial.model != "teacher"]
    assert all(trial.state == "screened" or not trial.feasible for trial in left)


def test_a_larger_budget_goes_on(recipe: Path, found: Outcome, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    shutil.copytree(found.folder / "search", folder / "search")
    about = json.loads((folder / "search/run.json").read_text())  # as if the budget had ended before cnn-4
    about["stages"] = {name: stage for name, stage in about["stages"].items() if "cnn-4" not in name}
    (folder / "search/run.json").write_text(json.dumps(about))

    ticks = iter(range(10**9))
    outcome = optimize(Asked(recipe, out=folder, budget="1s"), Tells(), clock=lambda: float(next(ticks)))
    assert outcome.record.ended == "the budget is spent"
    assert {trial.model for trial in outcome.record.trials} == {"teacher"}
    more = optimize(Asked(recipe, out=folder, budget="1h"), Tells(), clock=lambda: float(next(ticks)))
    assert {trial.model for trial in more.record.trials} == {"teacher", "cnn-2", "cnn-4"}
    assert more.record.spent_seconds > outcome.record.spent_seconds


def test_a_command_that_found_nothing_says_so_by_its_exit_code(
    copy: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["optimize", str(recipe), "--out", str(copy), "--max-drop", "90"]
    codes = {}
    for name, extra in {"met": [], "not met": ["--max-size", "0.000001"]}.items():
        monkeypatch.setattr("sys.argv", ["limbeck", *asked, *extra])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        codes[name] = ended.value.code
    assert codes == {"met": 0, "not met": 3}
    out = capsys.readouterr().out
    assert "nearest of what is not feasible: teacher-int8-static: the size is" in out
    assert f"recipe: {copy / 'optimized.toml'}" in out


def test_a_model_of_a_run_brings_its_data_and_students(found: Outcome) -> None:
    content, said = direct_content(f"run:{found.folder}", None)
    assert content["teacher"] == {"model": f"run:{found.folder}", "fit": {"epochs": 0}}
    assert content["data"]["test"] == 0.3
    assert content["accept"]["max_drop_points"] == 90.0
    assert "of the run that trained" in said[0]
    assert direct_content(str(found.folder / "teacher"), "digits")[0]["teacher"]["model"].startswith("run:")


def test_a_model_of_a_run_brings_all_that_limits_its_answers(tmp_path: Path) -> None:
    content = tomllib.loads(RECIPE)
    fit = {"epochs": 2, "final_refit": True}
    content["students"] = [{"name": "small", "model": "builtin:cnn-2", "fit": fit, "distill": {}, "control": False}]
    content |= {"abstain": {"precision": 0.9}, "calibrate": {"temperature": True}, "serving": {"threads": 1}}
    ran = parse_recipe(content, "tiny").model_dump(mode="json")
    (tmp_path / "run.json").write_text(json.dumps({"recipe": ran}))
    found, said = direct_content(f"run:{tmp_path}", None)
    assert found["abstain"]["precision"] == 0.9
    assert found["calibrate"] == {"temperature": True}
    assert found["serving"]["threads"] == 1
    assert "final_refit" not in found["students"][0]["fit"]
    assert "without final_refit of small" in said[1]
    assert Recipe.model_validate(found).students[0].fit.epochs == 2


def test_a_provider_without_int8_is_searched_in_fp16() -> None:
    content = tomllib.loads(RECIPE)
    content["quantize"]["provider"] = "cuda"
    recipe, config = parse_recipe(content, "tiny"), OptimizeConfig()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(providers.ort, "get_available_providers", lambda: list(providers.NAMES.values()))
        precisions, why = command._precisions(recipe, config)
    assert precisions == ("fp32", "fp16")
    assert "CUDAExecutionProvider has no int8 kernels" in why


@pytest.mark.parametrize(("limits", "small"), [({}, False), ({"prefer": "size"}, True), ({"max_size_mb": 1.0}, True)])
def test_small_weights_are_tried_where_size_counts(limits: dict[str, Any], small: bool) -> None:
    content = tomllib.loads(RECIPE)
    content["accept"] |= limits
    precisions, why = command._precisions(parse_recipe(content, "tiny"), OptimizeConfig())
    assert precisions[:3] == ("fp32", "int8-static", "int8-dynamic")
    assert (precisions[3:] == ("int8-weights", "int4-weights")) == small
    assert why == ""


def test_data_at_a_path_are_looked_at_as_init_does(tmp_path: Path) -> None:
    rows = [f"{'good' if at % 2 else 'bad'} number {at},{'yes' if at % 2 else 'no'}" for at in range(600)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (tmp_path / "model").mkdir()
    content, said = direct_content(str(tmp_path / "model"), str(tmp_path / "reviews.csv"))
    assert content["task"] == "text"
    assert content["teacher"]["model"] == f"hf:{tmp_path / 'model'}"
    assert content["teacher"]["fit"] == {"epochs": 0}
    assert content["data"]["label_column"] == "label"
    assert any("whatever this model was trained on" in line for line in said)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "give a recipe, or a trained model"),
        ({"model": "run:runs/x", "recipe": Path("x.toml")}, "give a recipe, or a trained model"),
        ({"recipe": Path("x.toml"), "data": "digits"}, "--data is for --model"),
        ({"model": "no/such/model", "data": "digits"}, "there is no model at 'no/such/model'"),
        ({"model": "hf:somewhere"}, "--model needs --data"),
        ({"model": "hf:somewhere", "data": "nowhere.csv"}, "--data nowhere.csv: there is no such file or folder"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        optimize(Asked(**asked), Tells())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": {"fit": {"final_refit": True}}}, "'teacher' has final_refit, which trains on validation"),
        ({"optimize": {"budget": "soon"}}, "'soon' is no budget"),
        ({"optimize": {"precisions": ["int8-static"]}}, "must hold 'fp32'"),
        ({"accept": {"max_drop_points": 0.1}}, "contradicts a test split"),
        ({"quantize": {"provider": "tensorrt"}}, "has no TensorrtExecutionProvider"),
        ({"optimize": {"students": [{**ODD, "distill": {"teachers": ["nobody"]}}]}}, "names 'nobody', which is no mod"),
        ({"optimize": {"students": [{**ODD, "options": {"hidden": -1}}]}}, "hidden"),
        # each of these would end the search once its turn came, after the teacher and all that was tried before
        ({"optimize": {"students": [{**ODD, "fit": {"class_weights": {"ten": 2.0}}}]}}, "the data have no label 'ten'"),
        ({"optimize": {"students": [{**ODD, "distill": {"features": HIDDEN}}]}}, "has no transformer layers"),
        (
            {"optimize": {"students": [{**ODD, "model": MODELS, "distill": {"features": MAPS}}]}},
            "has no stages",
        ),
    ],
)
def test_a_recipe_that_cannot_be_searched_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str, untrained: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    content = tomllib.loads(RECIPE)
    for table, fields in change.items():
        for name, value in fields.items():
            content[table][name] = {**content[table][name], **value} if isinstance(value, dict) else value
    path = tmp_path / "tiny.toml"
    path.write_text(tomli_w.dumps(content))
    with pytest.raises(UserError, match=message):
        optimize(Asked(path, out=tmp_path / "out"), Tells())


def test_a_run_directory_is_no_place_for_a_search(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="is a run directory"):
        optimize(Asked(recipe, out=tmp_path), Tells())


def test_what_controls_of_a_run_learned_by_is_left_out_with_them(tmp_path: Path) -> None:
    """A search has no controls, and nobody else would learn by it, which a recipe may not ask for."""
    content = tomllib.loads(RECIPE)
    fit = {"epochs": 2, "label_smoothing": 0.1}
    content["students"] = [{"name": "small", "model": "builtin:cnn-2", "fit": fit, "distill": {"alpha": 1.0}}]
    recipe = parse_recipe(content, "tiny")
    own, _ = own_students(recipe)
    assert [(student.name, student.fit.of_labels) for student in own] == [("small", ())]
    (tmp_path / "run.json").write_text(json.dumps({"recipe": recipe.model_dump(mode="json")}))
    found, _ = direct_content(f"run:{tmp_path}", None)
    assert [(student["name"], student["fit"]["epochs"]) for student in found["students"]] == [("small", 2)]
    assert "label_smoothing" not in found["students"][0]["fit"]
