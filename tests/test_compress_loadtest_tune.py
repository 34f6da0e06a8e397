"""`limbeck tune-serve`: what it writes, with a real server once, else with measurements that are made up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_run import Ran
from typer.testing import CliRunner

from compress.cli import app
from compress.loadtest import TuneAsked, generator, tune, tune_serve
from compress.loadtest.search import Found
from serve.errors import UserError
from serve.locate import find_package
from serve.manifest import ServingConfig
from serve.package import load_package, read_serving

EASY = "errors<50%"  # holds on any machine, however busy


@pytest.fixture
def copy(tiny: Ran, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.folder, tmp_path / "run"))


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[ServingConfig]:
    """Four cores; threads are worth much, workers little. The settings that were measured."""
    seen: list[ServingConfig] = []

    def measure(self: Any, serving: ServingConfig, rate: float, scratch: Path, windows: int) -> Found:
        seen.append(serving)
        capacity = 100.0 * serving.threads + 10.0 * serving.workers + serving.max_batch
        return Found(capacity if capacity >= rate else None, "objective", ())

    monkeypatch.setattr(tune._Bench, "measure", measure)
    monkeypatch.setattr(tune.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    return seen


def test_a_real_server_is_measured_with_its_setting_and_the_package_is_left_alone(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "_LEAST_SECONDS", 1.0)
    before = load_package(find_package(copy))
    said: list[str] = []
    asked = TuneAsked(EASY, minutes=0, lowest=20.0, highest=20.0, seconds=1.0)
    assert tune_serve(copy, asked, said.append)
    written = json.loads((copy / "loadtest" / "tune-serve.json").read_text())
    assert (written["state"], written["requests_per_second"]) == ("complete", 20.0)
    assert written["chosen"] == written["before"] == before.serving.model_dump(mode="json")
    assert [probe["kind"] for probe in written["confirmed"]["probes"]] == ["search", "window", "window", "window"]
    assert written["confirmed"]["probes"][1]["split"]["compute"]["requests"] > 0
    assert written["package_id"] == before.manifest.id == load_package(before.path).manifest.id
    assert "minutes are over" in " ".join(said)


def test_what_is_found_is_served_from_then_on(copy: Path, made_up: list[ServingConfig]) -> None:
    package = find_package(copy)
    batched = load_package(package).manifest.batch_invariant
    said: list[str] = []
    assert tune_serve(copy, TuneAsked(EASY), said.append)
    found = read_serving(package)
    assert (found.workers, found.threads) == (1, 3)  # of four cores, one is the generator's
    assert (found.max_batch > 1) == batched
    assert made_up[-1] == found  # confirmed last
    written = json.loads((copy / "loadtest" / "tune-serve.json").read_text())
    assert written["chosen"] == found.model_dump(mode="json")
    assert (written["server_cores"], written["generator_on_its_own_core"]) == (3, True)
    assert len(written["trials"]) == len(made_up) - 1
    assert any("was workers 1, threads 1" in line for line in said)


def test_where_nothing_holds_nothing_is_changed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune._Bench, "measure", lambda *_, **__: Found(None, "objective", ()))
    before = (find_package(copy) / "serving.json").read_bytes()
    result = CliRunner().invoke(app, ["tune-serve", str(copy), "--slo", "p99<1ms"])
    assert result.exit_code == 3, result.output
    assert "no setting keeps p99<1ms" in result.output
    assert (find_package(copy) / "serving.json").read_bytes() == before
    assert json.loads((copy / "loadtest" / "tune-serve.json").read_text())["state"] == "nothing held"


def test_a_trial_serves_a_copy_whose_answers_are_the_same(copy: Path, tmp_path: Path) -> None:
    package = load_package(find_package(copy))
    linked = tune._linked(package.path, tmp_path / "trial", ServingConfig(threads=2))
    assert read_serving(linked) == ServingConfig(threads=2)
    assert read_serving(package.path) == package.serving
    assert load_package(linked).manifest.id == package.manifest.id


def test_what_cannot_be_tuned_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_WORKERS", "2")
    with pytest.raises(UserError, match="LIMBECK_WORKERS is set"):
        tune_serve(copy, TuneAsked(EASY))
    monkeypatch.delenv("LIMBECK_WORKERS")
    with pytest.raises(UserError, match="--body text: images are sent as"):
        tune_serve(copy, TuneAsked(EASY, body="text"))
    report = json.loads((copy / "report.json").read_text())
    (copy / "report.json").write_text(json.dumps({**report, "selected": "small-int8-dynamic"}))
    monkeypatch.setattr(tune.os, "sched_getaffinity", lambda _: {0}, raising=False)
    with pytest.raises(UserError, match="nothing to tune: one core"):
        tune_serve(copy, TuneAsked(EASY))
    (copy / "report.json").write_text(json.dumps({**report, "selected": None}))
    with pytest.raises(UserError, match="has no selection to load"):
        tune_serve(copy, TuneAsked(EASY))
