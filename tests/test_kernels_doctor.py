from __future__ import annotations

import ctypes
import importlib.metadata
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kernels import catalog, machine, runtime, tuning
from kernels.doctor import examine, summary
from kernels.machine import Machine, misfit, this_machine, why_no_triton
from kernels.tuning import Entry, write

ROOT = Path(__file__).resolve().parent.parent
H200 = Machine("2.15.0", "3.9.0", None, "13.2", (13, 0), "580.65.06", "NVIDIA H200", (9, 0))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the committed files."""
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    tuning.forget()
    yield tmp_path
    tuning.forget()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"triton": None}, "Triton is not installed"),
        ({"torch_cuda": None}, "torch 2.15.0 is built without CUDA"),
        ({"driver_cuda": None}, "there is no NVIDIA driver, so no NVIDIA GPU"),
        ({"driver_cuda": (12, 8)}, "the NVIDIA driver knows CUDA 12.8, torch 2.15.0 needs 13.2: update the driver"),
        ({"gpu": None, "capability": None}, "no NVIDIA GPU was found (is CUDA_VISIBLE_DEVICES set?)"),
        ({"capability": (7, 5)}, "the GPU has compute capability 7.5: the kernels need 8.0"),
        ({"misfit": "torch needs another"}, "torch needs another"),
    ],
)
def test_what_is_missing_sends_every_kernel_to_its_reference(folder: Path, changed: dict, said: str) -> None:
    lines = examine(replace(H200, **changed))
    assert [line.kernel for line in lines] == catalog.stems()
    assert {(line.lane, line.why) for line in lines} == {("reference", said)}
    assert summary(replace(H200, **changed)) == f"fused kernels: off, {said}"


def test_where_nothing_is_missing_they_run_as_triton(folder: Path) -> None:
    assert {(line.lane, line.why, line.tuned) for line in examine(H200)} == {("Triton", "", "no: heuristic")}
    assert summary(H200) == "fused kernels: on"


def test_whether_a_kernel_is_tuned_for_this_gpu(folder: Path) -> None:
    entry = Entry("bias_gelu forward", 90, "bf16", "C<=2048", {"ROWS": 4}, "NVIDIA H200", 1.0, 1.0)
    write("bias_gelu", [entry])

    def said(here: Machine) -> str:
        return next(line.tuned for line in examine(here) if line.kernel == "bias_gelu")

    assert said(H200) == "NVIDIA H200, 1 configuration"
    assert said(replace(H200, gpu="NVIDIA H100")) == "for NVIDIA H200, of the same architecture, 1 configuration"
    assert said(replace(H200, gpu="NVIDIA B200", capability=(10, 0))) == "no: heuristic"
    (folder / "bias_gelu.json").write_text('{"schema": 9}')
    tuning.forget()
    assert said(H200).startswith("unreadable: ")


def test_torch_and_triton_are_compared_by_what_torch_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["numpy; extra == 'x'", 'triton~=3.9.0; platform_system == "Linux"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: asked)
    misfit.cache_clear()
    assert misfit() is None
    asked[1] = "triton==2.1.0"
    misfit.cache_clear()
    assert misfit() == f"torch {torch.__version__} needs triton==2.1.0, and {runtime.triton.__version__} is installed"
    misfit.cache_clear()


def test_this_machine_is_described_as_it_is() -> None:
    found = this_machine()
    assert found.torch == torch.__version__
    assert (found.gpu is None) == (not torch.cuda.is_available())
    assert (why_no_triton(found) is None) <= torch.cuda.is_available()


def test_the_driver_is_asked_by_number_and_may_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        def cuDriverGetVersion(self, answer: Any) -> int:  # noqa: N802
            answer._obj.value = 13020
            return 0

        def cuDeviceGetAttribute(self, answer: Any, number: int, device: int) -> int:  # noqa: N802
            answer._obj.value = 100 * number + device
            return 1 if number == 99 else 0

        def cuInit(self, flags: int) -> int:  # noqa: N802
            return failure

    failure = 0
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("CUDA was started"))
    assert this_machine(starts_cuda=False).capability == (7500, 7600)
    assert this_machine(starts_cuda=False).gpu is None
    failure = 100  # CUDA_ERROR_NO_DEVICE
    assert this_machine(starts_cuda=False).capability is None
    assert machine._driver_cuda() == (13, 2)
    assert machine.driver_attribute(36, 1) == 3601
    assert machine.driver_attribute(99, 0) is None

    def absent(_: str) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert machine._driver_cuda() is None
    assert machine.driver_attribute(36, 0) is None
    assert this_machine(starts_cuda=False).capability is None


def test_without_nvidia_smi_there_are_no_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", absent)
    assert machine.clocks() == {}


def test_clocks_are_what_nvidia_smi_says_of_the_first_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    out = "1980, 1980, 3201, 700.00, 41\n1980, 1980, 3201, 700.00, 44\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, out, ""))
    assert machine.clocks() == {
        "clocks.sm": "1980", "clocks.max.sm": "1980", "clocks.mem": "3201", "power.limit": "700.00",
        "temperature.gpu": "41",
    }  # fmt: skip


IMPORTS = """
import sys
if {block}:
    sys.modules["triton"] = None
import torch
from kernels import catalog, doctor, machine, runtime, tuning
from kernels.bench import catalog as benchmarks, measure, record, search, steps, timing
benchmarks.cases()
assert (runtime.triton is None) == {block}
assert not torch.cuda.is_initialized()
from kernels.bias_gelu import bias_gelu, reference
x, bias = torch.randn(3, 5), torch.randn(5)
assert torch.equal(bias_gelu(x, bias), reference(x, bias))
for builds in catalog.builds():
    pass
for line in doctor.examine(machine.this_machine()):
    assert line.lane == "reference" or torch.cuda.is_available()
"""


@pytest.mark.parametrize("block", [True, False], ids=["without Triton", "with Triton"])
def test_everything_imports_and_falls_back_and_touches_no_gpu(block: bool) -> None:
    command = [sys.executable, "-c", IMPORTS.format(block=block)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
