"""Kernels with a bug put into their source, to show that the tests of the right ones would see it."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

import pytest


def plant(
    monkeypatch: pytest.MonkeyPatch, folder: Path, module: ModuleType, kernel: str, right: str, wrong: str
) -> None:
    """Let `module` launch its kernel with `wrong` in place of `right`, which must be there, until the test ends."""
    source = inspect.getsource(getattr(module, kernel).fn)
    assert right in source, f"{kernel} has no {right!r} in which to plant a bug"
    file = folder / f"{kernel}_with_a_bug.py"  # the interpreter reads a kernel's source from its file
    file.write_text(source.replace(right, wrong))
    names = dict(vars(module))
    exec(compile(file.read_text(), file, "exec"), names)
    monkeypatch.setattr(module, kernel, names[kernel])
