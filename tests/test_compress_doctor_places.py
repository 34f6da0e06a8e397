"""What a newcomer's machine lacks is told with what mends it: one fault planted at a time, then several for real."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from compress import doctor_places as places

ROOT = Path(__file__).resolve().parent.parent


def with_free(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))


@pytest.mark.parametrize(
    ("free", "problem", "note"),
    [
        (4e8, "has 400 MB free, and a run takes about 2 GB", None),
        (3e9, None, "3.0 GB are free on this disk"),
        (9e9, None, None),
    ],
)
def test_disks(monkeypatch: pytest.MonkeyPatch, free: float, problem: str | None, note: str | None) -> None:
    with_free(monkeypatch, free)
    for found, expected in ((places.disk(), problem), (places.little_disk(), note)):
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            assert expected in found
            assert "limbeck clean" in found


@pytest.mark.parametrize(("free", "told"), [(64e6, "/dev/shm has 64 MB free"), (2e9, None)])
def test_shared_memory(monkeypatch: pytest.MonkeyPatch, free: float, told: str | None) -> None:
    with_free(monkeypatch, free)
    found = places.shared_memory()
    assert found is None if told is None else found is not None and told in found and "--shm-size" in found


def test_no_shared_memory_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(places, "_SHM", tmp_path / "none")
    found = places.shared_memory()
    assert (found is not None and "there is no" in found) == (sys.platform == "linux")


def test_a_port_in_use_and_one_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        monkeypatch.setattr(places, "_PORT", number)
        assert f"port {number} is in use" in (places.port() or "")
        assert f"--port {number + 1}" in (places.port() or "")
    assert places.port() is None


def test_a_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(places.DATA, str(tmp_path))
    assert places.data() is None
    monkeypatch.setenv(places.DATA, str(tmp_path / "nowhere"))
    assert "LIMBECK_DATA" in (places.data() or "")


def test_a_folder_that_may_not_be_written_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_free(monkeypatch, 9e9)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    assert "may not be written to" in (places.disk() or "")


def test_every_check_can_be_made_on_this_machine() -> None:
    checks: list[Callable[[], str | None]] = [*places.PROBLEMS, *places.NOTES]
    assert all(found is None or ": " in found for found in (check() for check in checks))


def test_a_wrong_pair_an_old_locale_and_no_data_are_told_by_the_command(tmp_path: Path) -> None:
    """In a process of its own, with a torchvision that fails as the wrong one does."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    odd = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "LIMBECK_DATA": str(tmp_path / "none")}
    environment = {**os.environ, **odd, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "compress", "doctor"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    problems = [line for line in done.stdout.splitlines() if line.startswith("!! ")]
    assert "operator torchvision::nms does not exist): install both as requirements.lock" in problems[0]
    assert any("not UTF-8: set PYTHONUTF8=1" in line for line in problems)
    assert "note: no data folder at" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
