"""The benchmark of each kernel, by the name of its module."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence

from kernels import catalog
from kernels.bench.case import Case


def cases(stems: Sequence[str] | None = None) -> list[Case]:
    """All cases of the kernels that are named, or of every kernel that has its module `kernels.bench.<stem>`."""
    modules = [importlib.import_module(f"kernels.bench.{stem}").cases() for stem in stems or benched()]
    # the first of each kernel, then the second: when the time is over, every kernel was looked at
    return [case for turn in itertools.zip_longest(*modules) for case in turn if case is not None]


def benched() -> list[str]:
    """The kernels that have a benchmark."""
    return [stem for stem in catalog.stems() if importlib.util.find_spec(f"kernels.bench.{stem}")]
