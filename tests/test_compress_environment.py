from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import NoReturn

import pytest

from compress import environment
from compress.environment import git_commit, hardware, versions

CPUINFO = """processor\t: 0
model name\t: Some CPU @ 2.50GHz
flags\t\t: fpu avx avx2 avx512_vnni avx512fx amx_int8

processor\t: 1
model name\t: Another CPU
flags\t\t: fpu avx_vnni
"""


def install(monkeypatch: pytest.MonkeyPatch, **installed: str) -> None:
    """Let these distributions, and no others, be installed."""

    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(environment, "version", version)


def read_as(monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    """Let /proc/cpuinfo hold `content`, or not be there."""

    def read_text(path: Path) -> str:
        assert path == Path("/proc/cpuinfo")
        if content is None:
            raise FileNotFoundError(path)
        return content

    monkeypatch.setattr(Path, "read_text", read_text)


def test_versions_are_those_installed_and_what_is_absent_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, torch="2.9.1", numpy="2.3.0")
    assert versions() == {"python": platform.python_version(), "torch": "2.9.1", "numpy": "2.3.0"}
    assert versions(("numpy", "onnx")) == {"python": platform.python_version(), "numpy": "2.3.0"}


@pytest.mark.parametrize("distribution", ["onnxruntime", "onnxruntime-gpu"])
def test_both_builds_of_onnxruntime_go_by_one_name(monkeypatch: pytest.MonkeyPatch, distribution: str) -> None:
    install(monkeypatch, **{distribution: "1.23.2"})
    assert versions(("onnxruntime",))["onnxruntime"] == "1.23.2"


def test_what_decides_weights_and_answers_is_known_here() -> None:
    assert set(environment.DECIDING) <= set(versions())


def test_hardware_names_the_first_processor_and_the_instructions_that_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    read_as(monkeypatch, CPUINFO)
    found = hardware()
    assert found["cpu"] == "Some CPU @ 2.50GHz"
    assert found["cpu_flags"] == ["avx2", "avx512_vnni", "amx_int8"]
    assert found["cores"] >= 1
    assert 0.1 < found["memory_gb"] < 100_000


def test_hardware_has_something_to_say_where_there_is_no_cpuinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    read_as(monkeypatch, None)
    found = hardware()
    assert found["cpu"]
    assert found["cpu_flags"] == []


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the code seems to run from; no repository yet."""
    root = tmp_path / "checkout"
    (root / "compress").mkdir(parents=True)
    (root / "compress/environment.py").write_text("one\n")
    monkeypatch.setattr(environment, "__file__", str(root / "compress/environment.py"))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # as a git hook sets them
        monkeypatch.delenv(name, raising=False)
    return root


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(root), *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(root: Path) -> str:
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "One")
    return git(root, "rev-parse", "HEAD")


def test_a_plus_marks_code_that_is_not_the_commits(checkout: Path) -> None:
    head = commit(checkout)[:12]
    assert git_commit() == head
    (checkout / "notes.txt").write_text("untracked, so it decides nothing\n")
    assert git_commit() == head
    (checkout / "compress/environment.py").write_text("two\n")
    assert git_commit() == f"{head}+"
    git(checkout, "add", "compress")
    assert git_commit() == f"{head}+"


def test_installed_code_has_no_commit_also_inside_somebodys_repository(checkout: Path) -> None:
    assert git_commit() is None
    commit(checkout.parent)
    assert git_commit() is None


def test_a_repository_without_a_commit_has_none(checkout: Path) -> None:
    git(checkout, "init")
    assert git_commit() is None


def test_a_machine_without_git_has_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> NoReturn:
        raise FileNotFoundError("git")

    commit(checkout)
    monkeypatch.setattr(subprocess, "run", run)
    assert git_commit() is None
