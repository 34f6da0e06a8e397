"""`limbeck doctor`: is this installation in order? One line for each finding, with what mends it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import kernels
from compress import doctor_places
from compress.environment import hardware, versions

_LOCK = "install both as requirements.lock has them: `make setup`, or `pip install -r requirements.lock`"


def examine() -> bool:
    """Print what was found; True when nothing needs mending. Nothing else is tried where torch cannot be imported."""
    for name, value in versions().items():
        print(f"   {name} {value}")
    broken = _torch_pair()
    if broken is None:
        _describe()
    checks = (_kernels_name, _installed, _one_onnxruntime, *doctor_places.PROBLEMS)
    problems = [*([broken] if broken else []), *_said(checks)]
    for note in _said(doctor_places.NOTES):
        print(f"   note: {note}")
    for problem in problems:
        print(f"!! {problem}")
    if not problems:
        print("ok")
    return not problems


def _said(checks: Iterable[doctor_places.Check]) -> list[str]:
    return [found for check in checks if (found := check())]


def _describe() -> None:
    """The machine, and what it cannot do well."""
    machine = hardware()
    print(f"   {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, GPU: {machine['gpu'] or 'none'}")
    if "avx512_vnni" not in machine["cpu_flags"] and "avx_vnni" not in machine["cpu_flags"]:
        print(
            "   note: this CPU has no VNNI instructions; int8 may be no faster than fp32 here, "
            "the report of a run says whether it is"
        )
    if missing := _no_provider(machine):
        print(f"   note: {missing}")
    print(f"   {_kernels_here()}")


def _kernels_here() -> str:
    from kernels.doctor import summary
    from kernels.machine import this_machine

    return summary(this_machine())


def _no_provider(machine: dict[str, Any]) -> str | None:
    """A GPU that ONNX Runtime was not built for: packages would be served by the processor."""
    if not machine["gpu"] or "CUDAExecutionProvider" in _providers():
        return None
    return (
        f"ONNX Runtime has no CUDAExecutionProvider, so packages do not run on the {machine['gpu']}: "
        "`pip uninstall onnxruntime`, then `pip install --force-reinstall onnxruntime-gpu`"
    )


def _providers() -> list[str]:
    import onnxruntime

    found: list[str] = onnxruntime.get_available_providers()
    return found


def _one_onnxruntime() -> str | None:
    """Its two distributions hold the same files: which one is there is then a matter of luck."""
    found = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(found) < 2:
        return None
    return (
        "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
        "`pip uninstall onnxruntime onnxruntime-gpu`, then install the one of requirements.lock"
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _kernels_name() -> str | None:
    """Hugging Face's distribution `kernels` and our package of that name must not share an environment."""
    if other := _version("kernels"):
        return f"Hugging Face's `kernels` {other} is installed beside limbeck's: use an environment of its own"
    ours = Path(__file__).resolve().parent.parent
    if Path(kernels.__file__ or "").resolve().parent.parent != ours:
        return f"another package called `kernels` hides limbeck's: {kernels.__file__}; rename it, or go elsewhere"
    return None


def _torch_pair() -> str | None:
    """torch and torchvision are built for each other; the wrong pair fails on its operators."""
    try:
        from torchvision.ops import nms  # noqa: F401  # the import registers the operators
    except (ImportError, RuntimeError, OSError) as error:
        pair = " and ".join(f"{name} {_version(name) or '(none)'}" for name in ("torch", "torchvision"))
        return f"torch and torchvision do not fit together ({pair}: {_first_line(error)}): {_LOCK}"
    return None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _installed() -> str | None:
    """The code that runs is the code that is installed."""
    try:
        found = distribution("limbeck").version
    except PackageNotFoundError:
        return f"limbeck is not installed in this environment ({sys.prefix}): run `make setup`"
    if found == kernels.__version__:
        return None
    return f"limbeck {found} is installed, but this code is {kernels.__version__}: run `make setup` again"
