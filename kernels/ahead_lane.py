"""Every committed configuration compiled for every architecture, what was found, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from kernels.ahead import ARCHS, Build, Resources, compile_for, complaints
from kernels.runtime import interprets, triton

SCHEMA = 1


@dataclass(frozen=True)
class Compiled:
    """One build on one architecture: what it takes, or why it did not compile, and what is wrong with it."""

    build: str
    arch: int
    found: Resources | None
    wrong: tuple[str, ...]


def why_not_here() -> str | None:
    """Why nothing can be compiled in this process; None where it can."""
    if triton is None:
        return "Triton is not installed"
    if interprets():
        return "TRITON_INTERPRET=1 is set: Triton interprets and does not compile"
    return None


def compile_all(
    builds: Iterable[Build], archs: Sequence[int] = ARCHS, tell: Callable[[Compiled], None] | None = None
) -> list[Compiled]:
    """Compile each of `builds` for each of `archs`; what a compiler refuses is a complaint, and no error."""
    done = []
    for build in builds:
        for arch in (arch for arch in archs if arch >= build.oldest):
            done.append(_compiled(build, arch))
            if tell is not None:
                tell(done[-1])
    return done


def sample(builds: Iterable[Build]) -> list[Build]:
    """The first build of each kernel module, for a test that has seconds."""
    first: dict[str, Build] = {}
    for build in builds:
        first.setdefault(build.name.split()[0], build)
    return list(first.values())


def record(done: Sequence[Compiled]) -> dict[str, Any]:
    """All of it, with the versions that decide registers, for a JSON file."""
    rows = [
        {"build": each.build, "arch": each.arch, "complaints": list(each.wrong), **_figures(each.found)}
        for each in done
    ]
    return {"schema": SCHEMA, "versions": versions(), "builds": rows}


def write(done: Sequence[Compiled], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record(done), indent=1) + "\n")


def versions() -> dict[str, str]:
    """Of torch, Triton, and the two ptxas that Triton brings (the second for sm_100 and newer)."""
    found = {"torch": torch.__version__, "triton": triton.__version__}
    for name in ("ptxas", "ptxas_blackwell"):
        tool = getattr(triton.knobs.nvidia, name, None)
        if tool is not None:
            found[name] = tool.version
    return found


def _compiled(build: Build, arch: int) -> Compiled:
    try:
        found = compile_for(build, arch)
    except Exception as error:  # Triton's and ptxas's errors have no class in common
        reason = (str(error).strip().splitlines() or [""])[-1]
        said = f"{build.name} on sm_{arch} does not compile: {type(error).__name__}: {reason}"
        return Compiled(build.name, arch, None, (said,))
    return Compiled(build.name, arch, found, tuple(complaints(build, found)))


def _figures(found: Resources | None) -> dict[str, Any]:
    return {} if found is None else {key: value for key, value in asdict(found).items() if key not in ("build", "arch")}
