"""`limbeck doctor`: is this installation in order? Each check prints one line."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import kernels
from compress.environment import hardware, versions
from kernels.doctor import summary
from kernels.machine import this_machine


def examine() -> bool:
    """Print what was found; True when nothing needs mending."""
    for name, value in versions().items():
        print(f"   {name} {value}")
    machine = hardware()
    print(f"   {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, GPU: {machine['gpu'] or 'none'}")
    if "avx512_vnni" not in machine["cpu_flags"] and "avx_vnni" not in machine["cpu_flags"]:
        print("   note: this CPU has no VNNI instructions; int8 may be no faster than fp32 here")
    print(f"   {summary(this_machine())}")
    problems = [problem for check in (_kernels_name, _torch_pair, _installed) if (problem := check())]
    for problem in problems:
        print(f"!! {problem}")
    if not problems:
        print("ok")
    return not problems


def _kernels_name() -> str | None:
    """Hugging Face's distribution `kernels` and our package of that name must not share an environment."""
    try:
        other = version("kernels")
    except PackageNotFoundError:
        pass
    else:
        return f"Hugging Face's `kernels` {other} is installed beside limbeck's: use an environment of its own"
    ours = Path(__file__).resolve().parent.parent
    if Path(kernels.__file__ or "").resolve().parent.parent != ours:
        return f"another package called `kernels` hides limbeck's: {kernels.__file__}"
    return None


def _torch_pair() -> str | None:
    """torch and torchvision are built for each other; the wrong pair fails on its operators."""
    try:
        from torchvision.ops import nms  # noqa: F401  # the import registers the operators
    except (ImportError, RuntimeError) as error:
        return f"torch and torchvision do not fit together ({error}): install both from requirements.lock"
    return None


def _installed() -> str | None:
    """The code that runs is the code that is installed."""
    try:
        found = distribution("limbeck").version
    except PackageNotFoundError:
        return f"limbeck is not installed in this environment ({sys.prefix}): run `make setup`"
    return (
        None
        if found == kernels.__version__
        else f"limbeck {found} is installed, but this code is {kernels.__version__}"
    )
