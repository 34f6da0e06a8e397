from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace
from typing import Any

import pytest

import kernels
from compress import cli, doctor
from compress.doctor import examine

KERNELS = "fused kernels: off, there is no NVIDIA driver, so no NVIDIA GPU"
MACHINE = {"cpu": "Some CPU", "cores": 2, "memory_gb": 23.5, "cpu_flags": ["avx2", "avx512_vnni"], "gpu": None}


@pytest.fixture(autouse=True)
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation in order, whatever this one is: each test spoils one thing."""

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "hardware", lambda: MACHINE)
    monkeypatch.setattr(doctor, "versions", lambda: {"python": "3.11.9", "torch": "2.9.1"})
    monkeypatch.setattr(doctor, "_kernels_here", lambda: KERNELS)
    monkeypatch.setattr(doctor, "version", absent)
    monkeypatch.setattr(doctor.doctor_places, "PROBLEMS", ())
    monkeypatch.setattr(doctor.doctor_places, "NOTES", ())
    monkeypatch.setattr(doctor, "distribution", lambda _: SimpleNamespace(version=kernels.__version__))


def examined(capsys: pytest.CaptureFixture[str]) -> tuple[bool, str]:
    """Whether all is well, and what was printed."""
    fine = examine()
    return fine, capsys.readouterr().out


def test_an_installation_in_order_is_described_and_called_ok(capsys: pytest.CaptureFixture[str]) -> None:
    fine, out = examined(capsys)
    assert fine
    assert out.splitlines() == [
        "   python 3.11.9",
        "   torch 2.9.1",
        "   Some CPU, 2 cores, 23.5 GB, GPU: none",
        f"   {KERNELS}",
        "ok",
    ]


def installed(monkeypatch: pytest.MonkeyPatch, **found: str) -> None:
    """Only these distributions are there."""

    def version(name: str) -> str:
        if name.replace("-", "_") not in found:
            raise PackageNotFoundError(name)
        return found[name.replace("-", "_")]

    monkeypatch.setattr(doctor, "version", version)


def theirs_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, kernels="0.11.0")


def two_runtimes_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, onnxruntime="1.31.1", onnxruntime_gpu="1.31.1")


def another_hides_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "__file__", "/elsewhere/kernels/__init__.py")


def ours_has_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "__file__", None)  # as of a folder without an __init__.py


def torchvision_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, torch="2.15.0", torchvision="0.20.0")
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)


def limbeck_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "distribution", absent)


def another_limbeck_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "distribution", lambda _: SimpleNamespace(version="0.0.9"))


PROBLEMS = {
    theirs_is_installed: "Hugging Face's `kernels` 0.11.0 is installed beside limbeck's: use an environment of its own",
    another_hides_ours: "another package called `kernels` hides limbeck's: /elsewhere/kernels/__init__.py",
    ours_has_no_file: "another package called `kernels` hides limbeck's",
    two_runtimes_are_installed: "onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
    torchvision_does_not_import: "torch and torchvision do not fit together (torch 2.15.0 and torchvision 0.20.0: ",
    limbeck_is_not_installed: "limbeck is not installed in this environment",
    another_limbeck_is_installed: f"limbeck 0.0.9 is installed, but this code is {kernels.__version__}",
}


@pytest.mark.parametrize("spoil", PROBLEMS, ids=lambda spoil: spoil.__name__)
def test_each_problem_is_one_line_and_makes_the_command_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], spoil: Any
) -> None:
    spoil(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["limbeck", "doctor"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 2
    assert [line for line in lines if line.startswith("!!")] == lines[-1:]
    assert lines[-1].startswith(f"!! {PROBLEMS[spoil]}")
    assert "ok" not in lines


def test_every_problem_is_told_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    theirs_is_installed(monkeypatch)
    another_limbeck_is_installed(monkeypatch)
    fine, out = examined(capsys)
    assert not fine
    assert len([line for line in out.splitlines() if line.startswith("!!")]) == 2


@pytest.mark.parametrize(
    ("flags", "warned"), [([], True), (["avx512f"], True), (["avx512_vnni"], False), (["avx_vnni"], False)]
)
def test_a_cpu_on_which_int8_is_slow_is_no_problem_but_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str], warned: bool
) -> None:
    monkeypatch.setattr(doctor, "hardware", lambda: {**MACHINE, "cpu_flags": flags})
    fine, out = examined(capsys)
    assert fine
    assert ("note: this CPU has no VNNI instructions" in out) == warned


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "CPUExecutionProvider"])
def test_a_gpu_is_named_and_a_runtime_that_cannot_use_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], provider: str
) -> None:
    monkeypatch.setattr(doctor, "hardware", lambda: {**MACHINE, "gpu": "NVIDIA H200"})
    monkeypatch.setattr(doctor, "_providers", lambda: [provider])
    fine, out = examined(capsys)
    assert fine
    assert "GPU: NVIDIA H200" in out
    assert ("packages do not run on the NVIDIA H200: `pip uninstall onnxruntime`" in out) == provider.startswith("CPU")
