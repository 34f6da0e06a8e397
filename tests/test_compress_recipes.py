from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import Recorder, made_up_memory

from compress.pipeline import run
from compress.recipe_file import load_recipe
from compress.stages import measuring

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
SMALL = (
    "data.train=300",
    "data.calibration=20",
    "data.validation=60",
    "data.test=120",
    "evaluate.latency_samples=20",
    "evaluate.batch_sizes=[1]",
    "accept.max_drop_points=60",
    "teacher.fit.epochs=1",
    "students.*.fit.epochs=1",
)


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason="no CIFAR-10 in ../shared/data")
def test_the_cifar10_recipe_on_a_small_part_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_DATA", str(SHARED))
    monkeypatch.setattr(measuring, "measure_memory", made_up_memory)
    recipe = load_recipe(ROOT / "compress/recipes/cifar10.toml", list(SMALL))
    report = run(recipe, tmp_path / "run", Recorder())
    assert report.data.labels[:3] == ["airplane", "automobile", "bird"]
    assert {name: split.size for name, split in report.data.splits.items()} == {
        "train": 300,
        "calibration": 20,
        "validation": 60,
        "test": 120,
    }
    teacher, student = report.variant("teacher-torch"), report.variant("resnet8-int8-static")
    assert (teacher.params, student.params) == (272_474, 78_042)
    assert student.size_bytes < teacher.size_bytes / 8
    assert student.graph["weights"]["int8"] > 0.9
