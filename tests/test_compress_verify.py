"""`limbeck verify` on a finished run, against real servers."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import Served
from tiny_run import Ran

from compress import cli, verify
from compress.rundir import remove
from compress.verify import verify_run
from serve.errors import UserError
from serve.launch import ServerProcess, start


@pytest.fixture
def copy(tiny: Ran, tmp_path: Path) -> Path:
    """A copy of the finished run, to be spoilt."""
    return Path(shutil.copytree(tiny.folder, tmp_path / "run"))


@pytest.fixture(scope="module")
def server(tiny: Ran) -> Iterator[ServerProcess]:
    """A server of the run's selection, started by somebody else."""
    with start(tiny.folder / "packages" / str(tiny.report.selected)) as started:
        yield started


def spoil(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the content of a JSON file."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def spoil_predictions(run: Path, selected: str) -> None:
    """Claim that the selection had answered as a variant that answers otherwise did."""
    predictions = run / "predictions"
    shutil.copyfile(predictions / "small-alone-fp32.parquet", predictions / f"{selected}.parquet")


def test_a_run_without_a_selection_has_nothing_to_verify(copy: Path) -> None:
    def reject(report: dict[str, Any]) -> None:
        report.update(selected=None, verdict="Not accepted: it is too large.")

    spoil(copy / "report.json", reject)
    with pytest.raises(UserError, match=r"no selection to verify: Not accepted: it is too large\.") as error:
        verify_run(copy, None)
    assert "run it again" in error.value.hint


def test_any_package_of_a_run_can_be_verified_also_where_nothing_was_selected(tiny: Ran, copy: Path) -> None:
    spoil(copy / "report.json", lambda report: report.update(selected=None))
    other = next(
        variant
        for variant in tiny.report.variants
        if variant.package_id is not None and variant.id != tiny.report.selected
    )
    assert verify_run(copy, None, other.id)
    with pytest.raises(UserError, match="has no package 'small-fp3'") as error:
        verify_run(copy, None, "small-fp3")
    assert "small-fp32" in error.value.hint


@pytest.mark.parametrize("change", [{"seed": 4}, {"data": {"source": "digits", "test": 0.25}}], ids=["split", "size"])
def test_other_data_than_was_measured_is_refused_before_anything_is_served(
    copy: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.setattr(verify, "start", lambda *_: pytest.fail("a server was started"))
    spoil(copy / "run.json", lambda about: about["recipe"].update(change))
    with pytest.raises(UserError, match=r"the data at digits is no longer what .*run was measured on") as error:
        verify_run(copy, None)
    assert error.value.hint == "run the recipe again"


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("report.json", "no report in"),
        ("run.json", "cannot read .*run.json"),
        ("predictions", "no predictions in"),
        ("packages", "packages"),
    ],
)
def test_what_a_run_has_lost_is_named(copy: Path, lost: str, message: str) -> None:
    remove(copy / lost)
    with pytest.raises(UserError, match=message) as error:
        verify_run(copy, None)
    assert error.value.hint


def test_a_server_of_another_model_is_refused(tiny: Ran, served: Served) -> None:
    with pytest.raises(UserError, match=f"answers with another model: {served.model_id}"):
        verify_run(tiny.folder, served.url)


def test_a_server_at_hand_is_asked_and_left_running(
    tiny: Ran, server: ServerProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verify, "start", lambda *_: pytest.fail("a second server was started"))
    assert verify_run(tiny.folder, server.url)
    n = tiny.report.data.splits["test"].size
    *routes, last = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in routes] == [
        [name, f"{n}/{n}"] for name in ("json", "multipart", "raw", "at-once")
    ]
    assert all("label differences 0  score differences 0" in line for line in routes)
    assert last == "verified: the server answers as measured"
    os.kill(server.pid, 0)


def test_answers_that_are_not_those_measured_end_the_command_with_code_3(
    tiny: Ran,
    copy: Path,
    server: ServerProcess,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil_predictions(copy, str(tiny.report.selected))
    monkeypatch.setattr(sys, "argv", ["limbeck", "verify", str(copy), "--url", server.url])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out = capsys.readouterr().out
    assert ended.value.code == 3
    assert len(re.findall(r"first: item \d+: '\d' for '\d', scores up to", out)) == 4  # one for each way of asking
    assert out.splitlines()[-1] == "NOT verified: the server answers differently"


def test_without_a_server_one_is_started_and_ended(tiny: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[ServerProcess] = []

    @contextmanager
    def seen(package: Path) -> Iterator[ServerProcess]:
        with start(package) as server:
            started.append(server)
            yield server

    monkeypatch.setattr(verify, "start", seen)
    assert verify_run(tiny.folder, None)
    [server] = started
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
