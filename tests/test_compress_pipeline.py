from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from tiny_run import (
    PACKAGES,
    VARIANTS,
    Ran,
    Recorder,
    content,
    made_up_memory,
    package_ids,
    run_content,
    scores,
    weights,
)

from compress.measure.latency import speedup
from compress.pipeline import run
from compress.recipe_file import parse_recipe
from compress.report.schema import Choice, Report
from compress.rundir import open_run
from compress.stages import choosing, fitting, measuring
from compress.stages.context import RunContext
from compress.stages.training import train_models
from serve.package import load_package
from serve.predictor import Predictor
from serve.runner import scores as score
from train.classifier import Classifier, save_classifier
from train.data import load_data
from train.fit_result import FitResult

SMALL = ("small-fp32", "small-fp16", "small-int8-dynamic", "small-int8-static")


@pytest.fixture
def copy(tiny: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run, to be run again; memory is made up, since each variant costs a process."""
    monkeypatch.setattr(measuring, "measure_memory", made_up_memory)
    return Path(shutil.copytree(tiny.folder, tmp_path / "run"))


def test_the_run_directory_is_laid_out_as_designed(tiny: Ran) -> None:
    found = {file.relative_to(tiny.folder).as_posix() for file in tiny.folder.rglob("*") if file.is_file()}
    models = ("teacher", "students/small", "students/small-alone")
    files = ("manifest.json", "model.onnx", "card.json", "serving.json")
    assert found - {".lock"} == {
        *("run.json", "report.json", "report.html", "report.md", "MODEL_CARD.md", "loadtest/payloads.json"),
        *(f"{model}/{name}" for model in models for name in ("spec.json", "model.safetensors")),
        *(f"packages/{package}/{name}" for package in PACKAGES for name in files),
        *(f"predictions/{variant}.parquet" for variant in VARIANTS),
        *(f"predictions/validation/{variant}.parquet" for variant in VARIANTS),
    }


def test_run_json_tells_how_the_run_was_made(tiny: Ran) -> None:
    about = json.loads((tiny.folder / "run.json").read_text())
    assert about["seed"] == 3
    assert [student["name"] for student in about["recipe"]["students"]] == ["small", "small-alone"]
    assert parse_recipe(about["recipe"], "run.json") == parse_recipe(content(), "tiny")
    assert set(about["data"]["splits"]) == {"train", "calibration", "validation", "test"}
    assert about["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert set(about["stages"]) == set(tiny.console.states) == set(tiny.report.run.stages)


def test_report_json_is_the_report(tiny: Ran) -> None:
    text = (tiny.folder / "report.json").read_text()
    assert json.loads(text)["schema"] == 1
    assert Report.model_validate_json(text) == tiny.report
    assert [variant.id for variant in tiny.report.variants] == list(VARIANTS)
    assert tiny.report.baseline == "teacher-torch"
    assert tiny.report.selected == tiny.report.choice.id
    assert not tiny.report.selected.startswith("small-alone")


@pytest.mark.parametrize("variant_id", VARIANTS)
def test_rates_are_those_of_the_predictions(tiny: Ran, variant_id: str) -> None:
    variant = tiny.report.variant(variant_id)
    table = pq.read_table(tiny.folder / "predictions" / f"{variant_id}.parquet")
    labels, predicted = (table.column(name).to_numpy() for name in ("label", "predicted"))
    base = pq.read_table(tiny.folder / "predictions/teacher-torch.parquet").column("predicted").to_numpy()
    assert (np.stack(table.column("scores").to_numpy()).argmax(axis=1) == predicted).all()
    assert variant.n == len(labels) == tiny.report.data.splits["test"].size
    assert variant.errors == (labels != predicted).sum()
    assert variant.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert variant.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert variant.confusion == confusion_matrix(labels, predicted).tolist()
    assert [row.n for row in variant.per_class] == np.bincount(labels).tolist()
    assert variant.agreement == pytest.approx((base == predicted).mean())
    assert variant.flips.lost == ((base == labels) & (predicted != labels)).sum()
    assert variant.flips.gained == ((base != labels) & (predicted == labels)).sum()


@pytest.mark.parametrize("variant_id", VARIANTS)
def test_a_variant_contradicts_itself_nowhere(tiny: Ran, variant_id: str) -> None:
    variant, base = tiny.report.variant(variant_id), tiny.report.variant(tiny.report.baseline)
    assert variant.flips.lost - variant.flips.gained == variant.errors - base.errors
    assert variant.accuracy_drop_points == pytest.approx(100 * (base.accuracy - variant.accuracy))
    low, high = variant.accuracy_drop_points_ci95
    assert low < variant.accuracy_drop_points < high
    assert (variant.metric_drop_points, *variant.metric_drop_points_ci95) == (variant.accuracy_drop_points, low, high)
    assert variant.accuracy_ci95[0] < variant.accuracy < variant.accuracy_ci95[1]
    assert sum(map(sum, variant.confusion)) == variant.n
    assert (variant.verdict == "accepted") == (not variant.reasons)
    own, reference = variant.latency_ms[0], base.latency_ms[0]
    assert [(entry.batch, entry.threads, entry.n) for entry in variant.latency_ms] == [(1, 1, 20), (8, 1, 20)]
    assert variant.speedup == pytest.approx(speedup(reference, own))
    assert own.processor_p50 is not None
    assert 0 < own.processor_p50 <= 1.05 * own.total_p95
    assert own.compute_p50 < own.total_p50 <= own.total_p95
    assert own.total_p99 is None


def test_memory_is_that_of_a_process_without_torch(tiny: Ran) -> None:
    packaged = [variant.peak_rss_mb for variant in tiny.report.variants if variant.runtime == "onnxruntime"]
    assert 20 < min(packaged) <= max(packaged) < tiny.report.variant("teacher-torch").peak_rss_mb


@pytest.mark.parametrize("variant_id", PACKAGES)
def test_every_package_loads_and_answers_as_was_measured(tiny: Ran, variant_id: str) -> None:
    variant = tiny.report.variant(variant_id)
    package = load_package(tiny.folder / "packages" / variant_id)
    assert variant.package_id == package.manifest.id
    assert variant.size_bytes == package.size_bytes == (package.path / "model.onnx").stat().st_size
    assert package.card["metrics"]["accuracy"] == variant.accuracy
    items = load_data(parse_recipe(content(), "tiny").data, 3).splits["test"].content[:40]
    measured = scores(tiny.folder)[f"predictions/{variant_id}.parquet"][:40]
    one_by_one = np.concatenate([score(Predictor(package), [item]) for item in items])
    assert np.abs(one_by_one - measured).max() < 1e-5


def test_fp32_packages_compute_what_the_model_does(tiny: Ran) -> None:
    for variant in tiny.report.variants:
        if variant.precision == "fp32" and variant.parity is not None:
            assert variant.parity.disagreements == 0
            assert variant.parity.max_abs < 1e-4
            assert variant.parity.n == tiny.report.data.splits["validation"].size
    assert tiny.report.variant("small-int8-static").parity is not None


def test_payloads_carry_the_answers_of_the_choice(tiny: Ran) -> None:
    payloads = json.loads((tiny.folder / "loadtest/payloads.json").read_text())
    predictor = Predictor.load(tiny.folder / "packages" / tiny.report.choice.id)
    assert payloads["model_id"] == predictor.package.manifest.id
    assert len(payloads["items"]) == 256
    answers = score(predictor, [base64.b64decode(item["input"]) for item in payloads["items"]])
    assert [item["label"] for item in payloads["items"]] == [predictor.labels[row] for row in answers.argmax(axis=1)]
    assert np.abs(answers.max(axis=1) - [item["score"] for item in payloads["items"]]).max() < 1e-5


def test_a_control_starts_and_trains_as_its_student_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, dict[str, torch.Tensor]] = {}
    configs, taught = {}, {}

    def no_training(classifier: Classifier, config: Any, *_: Any, folder: Path, teaching: Any, **__: Any) -> FitResult:
        name = folder.name.rpartition("-")[0]
        started[name] = {key: tensor.clone() for key, tensor in classifier.state_dict().items()}
        configs[name], taught[name] = config, teaching is not None
        save_classifier(classifier, folder)
        return FitResult(epochs=[], best_epoch=1, params=1, macs=1)

    monkeypatch.setattr(fitting, "fit", no_training)
    recipe = parse_recipe(content(), "tiny")
    console = Recorder()
    with open_run(tmp_path / "run", {}, console.stage) as rundir:
        train_models(RunContext(recipe, load_data(recipe.data, recipe.seed), rundir, console))
    student, control = started["students--small"], started["students--small-alone"]
    assert all(torch.equal(student[key], control[key]) for key in student)
    assert configs["students--small"] == configs["students--small-alone"]
    assert taught == {"teacher": False, "students--small": True, "students--small-alone": False}


def test_running_again_changes_nothing(tiny: Ran, copy: Path) -> None:
    again = run_content(content(), copy)
    assert again.console.redone == set()
    assert weights(copy) == weights(tiny.folder)
    ignored = {"run": True}  # when and by which command
    assert again.report.model_dump(exclude=ignored) == tiny.report.model_dump(exclude=ignored)


def test_a_changed_student_is_redone_alone(tiny: Ran, copy: Path) -> None:
    recipe = content()
    recipe["students"][0]["distill"]["temperature"] = 6.0
    again = run_content(recipe, copy)
    own = {f"{stage}/{variant}" for stage in ("packages", "validation", "test") for variant in SMALL}
    assert again.console.redone == {"students/small", *own, "latency", "memory", "choice"}
    before, after = weights(tiny.folder), weights(copy)
    assert {path for path in before if before[path] != after[path]} == {"students/small/model.safetensors"}


def test_more_epochs_of_a_student_leave_the_teacher_alone(copy: Path) -> None:
    recipe = content()
    recipe["students"][0]["fit"]["epochs"] = 1
    recipe["quantize"]["precisions"] = ["fp32"]
    again = run_content(recipe, copy)
    assert {"students/small", "students/small-alone"} <= again.console.redone
    assert not [stage for stage in again.console.redone if "teacher" in stage]
    assert [len(again.report.training[name]) for name in ("teacher", "small", "small-alone")] == [3, 1, 1]


def test_new_constraints_redo_only_the_choice_and_say_that_test_had_been_seen(tiny: Ran, copy: Path) -> None:
    recipe = content()
    recipe["accept"] |= {"max_drop_points": 50.0, "prefer": "size"}
    again = run_content(recipe, copy)
    assert again.console.redone == {"choice"}
    smallest = min((row for row in again.report.choice.ranking if row.eligible), key=lambda row: row.size_bytes)
    assert again.report.choice.id == smallest.id
    assert again.report.choice.after_test
    assert not tiny.report.choice.after_test


def test_a_target_redoes_only_the_choice_and_judges_by_it(tiny: Ran, copy: Path) -> None:
    recipe = content()
    reached = 100 * max(variant.accuracy for variant in tiny.report.variants if variant.name == "small")
    recipe["accept"] = {"target_percent": reached - 20, "max_drop_points": 1.0}
    again = run_content(recipe, copy)
    assert again.console.redone == {"choice"}
    assert again.report.selected is not None
    variant = again.report.variant(again.report.selected)
    low, high = variant.accuracy_ci95
    assert variant.metric_drop_points == pytest.approx(reached - 20 - 100 * variant.accuracy)
    assert variant.metric_drop_points_ci95 == pytest.approx((reached - 20 - 100 * high, reached - 20 - 100 * low))
    assert variant.accuracy_drop_points == tiny.report.variant(variant.id).accuracy_drop_points
    card = load_package(copy / "packages" / variant.id).card
    assert card["metrics"]["judged"] == {"metric": "accuracy", "target_percent": reached - 20, "max_drop_points": 1.0}
    assert Report.model_validate_json((copy / "report.json").read_text()) == again.report
    assert parse_recipe(json.loads((copy / "run.json").read_text())["recipe"], "run.json").accept.target_percent


def test_limits_that_nothing_meets_leave_no_selection_but_a_whole_report(copy: Path) -> None:
    recipe = content()
    recipe["accept"]["max_size_mb"] = 0.000001
    again = run_content(recipe, copy)
    assert again.report.selected is None
    assert again.report.verdict.startswith("Not accepted")
    assert {row.eligible for row in again.report.choice.ranking} == {False}
    assert json.loads((copy / "report.json").read_text())["selected"] is None
    assert (copy / "packages" / again.report.choice.id / "model.onnx").exists()


def test_a_choice_that_fails_on_test_is_not_swapped_for_another(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = choosing.choose

    def unlucky(*arguments: Any) -> Choice:
        return real(*arguments).model_copy(update={"id": "small-fp32"})

    monkeypatch.setattr(choosing, "choose", unlucky)
    recipe = content()
    recipe["accept"]["max_drop_points"] = 1.0
    report = run_content(recipe, copy).report
    assert report.variant("small-fp32").verdict == "rejected"
    assert report.variant("teacher-fp32").verdict == "accepted"
    assert report.selected is None


def test_a_model_that_left_the_recipe_leaves_the_folder(copy: Path) -> None:
    recipe = content()
    recipe["students"][0]["control"] = False
    again = run_content(recipe, copy)
    assert "students/small" not in again.console.redone
    left = [path for path in copy.rglob("*small-alone*") if path.name != ".lock"]
    assert left == []
    assert "students/small-alone" not in json.loads((copy / "run.json").read_text())["stages"]


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("packages/teacher-int8-static/model.onnx", "packages/teacher-int8-static"),
        ("predictions/small-fp16.parquet", "test/small-fp16"),
        ("students/small-alone/model.safetensors", "students/small-alone"),
    ],
)
def test_what_was_damaged_is_made_again_as_it_was(tiny: Ran, copy: Path, file: str, stage: str) -> None:
    damaged = bytearray((copy / file).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (copy / file).write_bytes(damaged)
    again = run_content(content(), copy)
    assert again.console.redone == {stage}
    assert (copy / file).read_bytes() == (tiny.folder / file).read_bytes()


def test_tuning_a_server_does_not_make_the_next_run_redo_its_package(tiny: Ran, copy: Path) -> None:
    serving = copy / "packages/small-fp32/serving.json"
    serving.write_text('{"threads": 2, "workers": 1}')
    assert run_content(content(), copy).console.redone == set()
    assert json.loads(serving.read_text())["threads"] == 2
    assert package_ids(copy) == package_ids(tiny.folder)


def test_a_recipe_says_how_its_packages_are_run(tiny: Ran, copy: Path) -> None:
    again = run_content(content() | {"serving": {"graph_level": "basic"}}, copy, memory=False)
    written = json.loads((copy / "packages/small-fp32/serving.json").read_text())
    assert written["graph_level"] == "basic"
    assert package_ids(copy) == package_ids(tiny.folder)
    assert {name.split("/")[0] for name in again.console.redone} == {
        "validation",
        "latency",
        "memory",
        "choice",
        "test",
    }
    assert "test/teacher-torch" not in again.console.redone


def test_a_choice_that_was_frozen_elsewhere_stays(copy: Path) -> None:
    frozen = Choice(id="teacher-fp16", reason="A search chose it.", ranking=[])
    found = run(parse_recipe(content(), "tiny"), copy, Recorder(), frozen=frozen)
    assert found.choice.id == "teacher-fp16"
    assert found.choice.reason == "A search chose it."
    assert found.choice.after_test  # this folder's test split was scored before
