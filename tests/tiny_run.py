"""A recipe on the digits that runs in seconds, and what tests look at in its run directory."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from compress.console import Console
from compress.measure.memory import MemoryResult
from compress.pipeline import describe, run
from compress.recipe_file import parse_recipe
from compress.report.schema import Report
from compress.report.write import read_report
from compress.rundir import open_run
from compress.stages import measuring
from compress.stages.context import RunContext
from compress.stages.training import train_models
from train.data import load_data
from train.fit_result import FitResult

# Models and training are too small to be any good: the margin is wide, so that there is a selection all the same.
RECIPE = """
name = "tiny"
seed = 3

[data]
source = "digits"
test = 0.3
validation = 0.15
calibration = 50

[teacher]
model = "builtin:cnn-8x16"
options = { hidden = 32 }
fit = { epochs = 3, batch_size = 64, learning_rate = 5e-3, augment = { shift = 1 } }

[[students]]
name = "small"
model = "builtin:cnn-8"
options = { hidden = 16 }
fit = { epochs = 2, batch_size = 64, learning_rate = 5e-3 }
distill = { temperature = 3.0, alpha = 0.8 }

[quantize]
precisions = ["fp32", "fp16", "int8-dynamic", "int8-static"]

[evaluate]
batch_sizes = [1, 8]
latency_samples = 20

[accept]
max_drop_points = 60.0
"""
PRECISIONS = ("fp32", "fp16", "int8-dynamic", "int8-static")
PACKAGES = (*(f"{model}-{precision}" for model in ("teacher", "small") for precision in PRECISIONS), "small-alone-fp32")
VARIANTS = ("teacher-torch", *PACKAGES)


@dataclass
class Recorder(Console):
    """A console that remembers how each stage ended: "done" or "unchanged"."""

    states: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def stage(self, name: str, state: str, seconds: float) -> None:
        self.states[name] = state

    @property
    def redone(self) -> set[str]:
        return {name for name, state in self.states.items() if state != "unchanged"}


@dataclass(frozen=True)
class Ran:
    """A run that ended."""

    folder: Path
    report: Report
    console: Recorder


def content() -> dict[str, Any]:
    """The tiny recipe, to be changed at will."""
    return tomllib.loads(RECIPE)


def run_content(recipe: dict[str, Any], folder: Path, memory: bool = True) -> Ran:
    """Run a recipe's content in `folder`; without `memory` that is made up: it takes a process for each variant."""
    console = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        if not memory:
            patch.setattr(measuring, "measure_memory", made_up_memory)
        return Ran(folder, run(parse_recipe(recipe, "tiny"), folder, console), console)


def train_content(recipe: dict[str, Any], folder: Path) -> tuple[Recorder, dict[str, FitResult]]:
    """Train what a recipe's content says in `folder`, without the rest of a run."""
    parsed, console = parse_recipe(recipe, "tiny"), Recorder()
    data = load_data(parsed.data, parsed.seed, parsed.task)
    with open_run(folder, describe(parsed, data, None), console.stage) as rundir:
        return console, train_models(RunContext(parsed, data, rundir, console))


def run_once(recipe: dict[str, Any], common: Path, folder: Path) -> Ran:
    """Run a recipe's content, unless another process of these tests has done it; a copy of the run, in `folder`.

    `common` is a folder that all of them know.
    """
    whole, ended = common / "run", common / "states.json"  # written last
    with FileLock(common.with_suffix(".lock")):
        if not ended.exists():
            ended.write_text(json.dumps(run_content(recipe, whole).console.states))
    shutil.copytree(whole, folder)
    return Ran(folder, read_report(folder), Recorder(states=json.loads(ended.read_text())))


def made_up_memory(variants: Mapping[str, Any], items: Sequence[bytes]) -> MemoryResult:
    """As much for each variant, in the place of `compress.measure.memory.measure_memory`."""
    return MemoryResult(peak_rss_mb=dict.fromkeys(variants, 100.0))


def scores(folder: Path) -> dict[str, np.ndarray]:
    """The scores of each predictions file, validation and test, by its path."""
    return {
        file.relative_to(folder).as_posix(): np.stack(pq.read_table(file).column("scores").to_numpy())
        for file in sorted((folder / "predictions").rglob("*.parquet"))
    }


def weights(folder: Path) -> dict[str, bytes]:
    """The bytes of each trained model, by its path."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*.safetensors"))}


def package_ids(folder: Path) -> dict[str, str]:
    """The id of each package, by its folder's name."""
    manifests = sorted((folder / "packages").glob("*/manifest.json"))
    return {file.parent.name: json.loads(file.read_text())["id"] for file in manifests}
