from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from helpers import tiny_package

from compress.stages.packages import set_serving
from serve.manifest import ServingConfig
from serve.package import read_serving


def test_packages_are_batched_as_the_recipe_says_where_that_changes_no_answer(tmp_path: Path) -> None:
    wanted = ServingConfig(threads=2, max_batch=8, max_wait_ms=1)
    run: Any = SimpleNamespace(recipe=SimpleNamespace(serving=wanted))
    steady = tiny_package(tmp_path / "steady").path
    moving = tiny_package(tmp_path / "moving", batch_invariant=False).path
    set_serving(run, [steady, moving])
    assert read_serving(steady) == wanted
    assert read_serving(moving) == ServingConfig(threads=2)
