"""What this machine has for the kernels: Triton, torch, driver, GPU. Asked when a person asks, never at import."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import subprocess
from dataclasses import dataclass

import torch
from packaging.requirements import Requirement

from kernels import runtime

_CAPABILITY = 75, 76  # CUdevice_attribute: major and minor
_CLOCKS = ("clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit", "temperature.gpu")  # MHz, MHz, MHz, W, C


@dataclass(frozen=True)
class Machine:
    """What decides whether Triton can run here."""

    torch: str
    triton: str | None  # None: not installed
    misfit: str | None  # why torch and Triton do not fit together
    torch_cuda: str | None  # the CUDA that torch was built for: "13.2"
    driver_cuda: tuple[int, int] | None  # the newest CUDA that the driver knows; None: no NVIDIA driver
    driver: str | None = None  # "580.65.06"
    gpu: str | None = None
    capability: tuple[int, int] | None = None

    @property
    def arch(self) -> int | None:
        """90 for compute capability 9.0."""
        return None if self.capability is None else 10 * self.capability[0] + self.capability[1]


def this_machine(starts_cuda: bool = True) -> Machine:
    """Look; this starts CUDA where there is any. Without, the driver is asked for the first GPU, whose name stays None.

    A process that has started CUDA holds the GPU: in its exclusive mode no other can have it besides.
    """
    there = starts_cuda and torch.cuda.is_available()
    return Machine(
        torch=torch.__version__,
        triton=None if runtime.triton is None else runtime.triton.__version__,
        misfit=misfit(),
        torch_cuda=torch.version.cuda,
        driver_cuda=_driver_cuda(),
        driver=_nvidia_smi("driver_version").get("driver_version"),
        gpu=torch.cuda.get_device_name() if there else None,
        capability=torch.cuda.get_device_capability() if there else None if starts_cuda else _first_capability(),
    )


def why_no_triton(machine: Machine) -> str | None:
    """The first reason why the kernels cannot run on this machine's GPU; None where they can."""
    if machine.triton is None:
        return "Triton is not installed"
    if machine.torch_cuda is None:
        return f"torch {machine.torch} is built without CUDA"
    if machine.driver_cuda is None:
        return "there is no NVIDIA driver, so no NVIDIA GPU"
    if machine.driver_cuda[0] < int(machine.torch_cuda.split(".")[0]):
        known = ".".join(map(str, machine.driver_cuda))
        return (
            f"the NVIDIA driver knows CUDA {known}, torch {machine.torch} needs {machine.torch_cuda}: update the driver"
        )
    if machine.capability is None:
        return "no NVIDIA GPU was found (is CUDA_VISIBLE_DEVICES set?)"
    return runtime.too_old(machine.capability) or machine.misfit


@functools.cache
def misfit() -> str | None:
    """Why the installed torch and Triton do not fit together, by what torch's own metadata ask for."""
    if runtime.triton is None:
        return None
    try:
        wanted = [Requirement(line) for line in importlib.metadata.requires("torch") or ()]
    except importlib.metadata.PackageNotFoundError:  # a torch without metadata: built from source
        return None
    found = runtime.triton.__version__
    for requirement in wanted:
        ours = requirement.name == "triton" and (requirement.marker is None or requirement.marker.evaluate())
        if ours and not requirement.specifier.contains(found, prereleases=True):
            return f"torch {torch.__version__} needs triton{requirement.specifier}, and {found} is installed"
    return None


def clocks() -> dict[str, str]:
    """Clocks in MHz, the power limit and the temperature of the first GPU now; empty without nvidia-smi."""
    return _nvidia_smi(*_CLOCKS)


def driver_attribute(number: int, device: int) -> int | None:
    """A CUdevice_attribute of a GPU; None without a driver, or where it does not know it."""
    return _asked_of_driver("cuDeviceGetAttribute", number, device)


def _nvidia_smi(*names: str) -> dict[str, str]:
    query = [f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(["nvidia-smi", *query], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = done.stdout.strip().splitlines()
    return dict(zip(names, (value.strip() for value in values[0].split(",")), strict=False)) if values else {}


def _driver_cuda() -> tuple[int, int] | None:
    """Asked of the driver's library itself, which answers without starting CUDA."""
    version = _asked_of_driver("cuDriverGetVersion")
    return (version // 1000, version % 1000 // 10) if version else None


def _first_capability() -> tuple[int, int] | None:
    """The compute capability of the first GPU that CUDA_VISIBLE_DEVICES leaves, without a context on it."""
    try:
        if ctypes.CDLL("libcuda.so.1").cuInit(0):
            return None
    except OSError:
        return None
    major, minor = (driver_attribute(number, 0) for number in _CAPABILITY)
    return None if major is None or minor is None else (major, minor)


def _asked_of_driver(function: str, *arguments: int) -> int | None:
    """The whole number that a function of the driver's library writes to its first argument."""
    answer = ctypes.c_int(0)
    try:
        failed = getattr(ctypes.CDLL("libcuda.so.1"), function)(ctypes.byref(answer), *arguments)
    except (OSError, AttributeError):
        return None
    return None if failed else answer.value
