from __future__ import annotations

from pathlib import Path

import pytest
from helpers import tiny_package

from serve.catalog import catalog, own_name, read_catalog
from serve.errors import UserError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    tiny_package(tmp_path / "digits" / "packages" / "small")
    (tmp_path / "digits" / "report.json").write_text('{"selected": "small"}')
    return tmp_path / "digits"


def test_a_run_and_what_it_selected_have_the_runs_name(run: Path, tmp_path: Path) -> None:
    assert own_name(run) == own_name(run / "packages" / "small") == "digits"
    assert own_name(tiny_package(tmp_path / "lone").path) == "lone"
    assert own_name(tmp_path / "a name with spaces") == "default"


def test_the_environment_names_the_default_and_others(run: Path, tmp_path: Path) -> None:
    other = tiny_package(tmp_path / "other").path
    named = read_catalog({"LIMBECK_PACKAGE": str(run), "LIMBECK_PACKAGES": f"second={other}, third={run},"})
    assert named.default == "digits"
    assert named.targets == {"digits": run, "second": other, "third": run}
    assert named.packages()["third"] == run / "packages" / "small"


def test_without_a_default_it_is_the_newest_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.parent / "runs").mkdir()
    run.rename(run.parent / "runs" / "digits")
    monkeypatch.chdir(run.parent)
    monkeypatch.delenv("LIMBECK_PACKAGE", raising=False)
    assert read_catalog({}).targets == {"digits": run.parent / "runs" / "digits"}


@pytest.mark.parametrize("entry", ["second", "=path", "second=", "../x=path", "a/b=path", f"{'x' * 65}=path", ".=path"])
def test_what_names_no_package_is_refused(run: Path, entry: str) -> None:
    with pytest.raises(UserError, match="names no package to serve") as caught:
        catalog(run, [entry])
    assert "expected NAME=PATH" in caught.value.hint


def test_no_two_models_have_one_name(run: Path) -> None:
    with pytest.raises(UserError, match="two packages are to be served under the name 'digits'"):
        catalog(run, [f"digits={run}"])
    with pytest.raises(UserError, match="has a comma"):
        catalog(run, ["second=a,b"])
    with pytest.raises(UserError, match="34 packages are named"):
        catalog(run, [f"n{i}={run}" for i in range(33)])
