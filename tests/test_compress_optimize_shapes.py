"""What is known of a student before it is trained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compress.optimize import shapes
from compress.optimize.timing import Timings
from compress.quantize.config import Quantize
from compress.recipe import Student
from compress.variants import Variant
from serve.errors import LimbeckError


def measured(monkeypatch: pytest.MonkeyPatch, broken: str) -> tuple[shapes.Shape, list[str]]:
    """The shape of a student of which one precision cannot be made, and the names of what was timed."""
    timed: list[str] = []

    def make(variant: Variant, *_: Any) -> Any:
        if variant.precision == broken:
            raise LimbeckError(f"{broken} changed only 60% of the weights of the graph")
        return SimpleNamespace(size_bytes=100)

    def time_packages(packages: dict[str, Path], *_: Any) -> Timings:
        timed.extend(packages)
        return Timings(packages={name: [] for name in packages})

    network = SimpleNamespace(params=1, macs=lambda: 1)
    monkeypatch.setattr(shapes, "make_package", make)
    monkeypatch.setattr(shapes, "time_packages", time_packages)
    monkeypatch.setattr(shapes, "wanted_by", lambda *_: None)
    monkeypatch.setattr(shapes, "new_classifier", lambda *_: SimpleNamespace(eval=lambda: network))
    run: Any = SimpleNamespace(
        rundir=SimpleNamespace(digest=lambda _: ""),
        recipe=SimpleNamespace(quantize=Quantize(), seed=0),
        data=SimpleNamespace(splits={"validation": SimpleNamespace(content=[b""])}),
        classifier=lambda _: None,
        inputs=lambda *_: SimpleNamespace(labels=[], lengths=None, __len__=lambda: 0),
        stage=lambda name, inputs, kind, work, splits: work(Path()),
    )
    monkeypatch.setattr(shapes, "_First", lambda inputs, count: inputs)
    student = Student(name="small", model="builtin:mlp-8")
    precisions = ("fp32", "int8-dynamic", "int8-static")
    return shapes.measure_shape(run, student, Path(), precisions, (1,), ("all",), 20), timed


def test_a_precision_that_cannot_be_made_costs_a_student_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, timed = measured(monkeypatch, broken="int8-dynamic")
    assert timed == ["fp32", "int8-static"]
    assert set(shape.sizes) == {"fp32", "int8-static"}


def test_without_fp32_there_is_no_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LimbeckError, match="fp32 changed only"):
        measured(monkeypatch, broken="fp32")
