from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_package

from serve.errors import UserError
from serve.locate import find_package


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIMBECK_PACKAGE", raising=False)


def _run(name: str, selected: Any, *packages: str, age: int = 0) -> Path:
    """A completed run, `age` seconds old."""
    run = Path("runs") / name
    run.mkdir(parents=True)
    for package in packages:
        tiny_package(run / "packages" / package)
    report = run / "report.json"
    report.write_text(json.dumps({"schema": 1, "selected": selected}))
    moment = report.stat().st_mtime - age
    os.utime(report, (moment, moment))
    return run


def _refusal(target: Path | None = None) -> UserError:
    with pytest.raises(UserError) as caught:
        find_package(target)
    assert caught.value.hint
    return caught.value


def test_a_package_folder_is_served_as_it_is(tmp_path: Path) -> None:
    tiny_package(Path("mine"))
    assert find_package(Path("mine")) == tmp_path / "mine"


def test_a_run_stands_for_what_it_selected(tmp_path: Path) -> None:
    run = _run("digits", "small-int8", "small-int8", "small-fp32")
    assert find_package(run) == tmp_path / "runs/digits/packages/small-int8"


def test_the_environment_names_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _run("digits", "small", "small", "other")
    for name, expected in ((run, "small"), (run / "packages" / "other", "other")):
        monkeypatch.setenv("LIMBECK_PACKAGE", str(name))
        assert find_package() == tmp_path / "runs/digits/packages" / expected


def test_a_named_target_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_package(Path("mine"))
    monkeypatch.setenv("LIMBECK_PACKAGE", "elsewhere")
    assert find_package(Path("mine")) == tmp_path / "mine"


def test_with_nothing_named_the_newest_run_with_a_selection_is_served(tmp_path: Path) -> None:
    _run("old", "a", "a", age=300)
    _run("middle", "b", "b", age=200)
    _run("none-met", None, "c", age=100)
    (Path("runs") / "unfinished").mkdir()
    assert find_package() == tmp_path / "runs/middle/packages/b"


def test_nothing_to_serve_says_how_to_begin() -> None:
    error = _refusal()
    assert "no completed run" in error.message
    assert "limbeck run" in error.hint
    assert "LIMBECK_PACKAGE" in error.hint


def test_runs_that_selected_nothing_are_counted() -> None:
    _run("one", None)
    _run("two", None)
    assert "no run selected a model" in _refusal().message


def test_a_run_that_selected_nothing_is_refused_by_name() -> None:
    assert "none met its constraints" in _refusal(_run("strict", None, "a")).message


@pytest.mark.parametrize("name", ["../../outside", "..", ".", "", "a/../../../outside", "/etc"])
def test_a_selection_does_not_lead_out_of_the_run(tmp_path: Path, name: str) -> None:
    tiny_package(tmp_path / "outside")
    assert "outside" in _refusal(_run("forged", name, "a")).message


def test_a_link_does_not_lead_out_of_the_run(tmp_path: Path) -> None:
    run = _run("linked", "b", "a")
    tiny_package(tmp_path / "elsewhere")
    (run / "packages" / "b").symlink_to(tmp_path / "elsewhere")
    assert "outside" in _refusal(run).message


def test_a_selected_package_that_is_gone_is_named() -> None:
    assert "'b'" in _refusal(_run("gone", "b", "a")).message


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"selected": 3}', '{"selected": ["a"]}'])
def test_a_damaged_report_is_refused_and_not_passed_over(content: str) -> None:
    _run("older", "a", "a", age=100)
    run = _run("newest", "a", "a")
    (run / "report.json").write_text(content)
    assert "report.json" in _refusal().message


def test_a_target_that_is_neither_is_refused(tmp_path: Path) -> None:
    assert "is not there" in _refusal(Path("nowhere")).message
    assert "neither" in _refusal(tmp_path).message
