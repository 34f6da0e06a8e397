"""Kernels as a launch on a GPU may ask for them besides, which neither the interpreter nor the committed builds show.

The launcher specialises: a whole number that is 1 becomes a constant of the kernel's source, one beyond 2^31 has 64
bits, and memory may begin anywhere. Such a build must compile; spilled registers and small loads are forgiven it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from kernels.ahead import Build

_WHOLE = ("i32", "i64")


def launches(builds: Iterable[Build]) -> list[Build]:
    """Of each kernel's first build: whole numbers that are 1, each and all, of 64 bits, no alignment, each flag turned.

    A flag is a constant that is True or False.
    """
    first: dict[Any, Build] = {}
    for build in builds:
        first.setdefault(build.kernel, build)
    return [launch for build in first.values() for launch in _of(build)]


def _of(build: Build) -> list[Build]:
    numbers = [name for name, kind in build.signature.items() if kind in _WHOLE]
    pointers = tuple(name for name, kind in build.signature.items() if kind.startswith("*"))
    found = [_ones(build, [name]) for name in numbers] + ([_ones(build, numbers)] if len(numbers) > 1 else [])
    found += [_with_flag(build, name) for name, value in build.constants.items() if isinstance(value, bool)]
    wide = {name: "i64" if kind in _WHOLE else kind for name, kind in build.signature.items()}
    found.append(_forgiven(build, "numbers of 64 bits", signature=wide))
    found.append(_forgiven(build, "memory that begins anywhere", unaligned=pointers, divisible=()))
    return found


def _ones(build: Build, names: list[str]) -> Build:
    kept = {name: kind for name, kind in build.signature.items() if name not in names}
    divisible = tuple(name for name in build.divisible if name not in names)
    constants = {**build.constants, **dict.fromkeys(names, 1)}
    return _forgiven(build, f"{' '.join(names)} = 1", signature=kept, constants=constants, divisible=divisible)


def _with_flag(build: Build, name: str) -> Build:
    turned = not build.constants[name]
    return _forgiven(build, f"{name} = {turned}", constants={**build.constants, name: turned})


def _forgiven(build: Build, what: str, **changes: Any) -> Build:
    name = f"{build.name}, {what}"
    return replace(build, name=name, vector_loads=False, mma=False, may_spill=True, **changes)
