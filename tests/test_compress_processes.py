"""A run in two processes: the first does all of it, the second trains with it, and both agree on what is done."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import tomli_w
from tiny_run import RECIPE
from two_trainings import HERE, in_two_processes

# As `limbeck run`, but without what a test of processes can do without: packages and what is measured of them.
TRAIN_ONLY = """
import subprocess
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from compress.console import Console
from compress.pipeline import describe
from compress.processes import follow, leading
from compress.recipe import load_recipe
from compress.rundir import open_run
from compress.stages.context import RunContext
from compress.stages.training import train_models
from train.data import load_data
from train.processes import world

recipe, folder = load_recipe(Path({recipe!r})), Path({folder!r})
if world().leads:
    data = load_data(recipe.data, recipe.seed, recipe.task)
    with leading(recipe) as announce, open_run(folder, describe(recipe, data, None), Console().stage, announce) as run:
        train_models(RunContext(recipe, data, run, Console()))
else:
    follow(recipe, folder)
"""


def test_the_second_process_trains_and_nothing_else(tmp_path: Path) -> None:
    content = tomllib.loads(RECIPE)
    content["teacher"] |= {"model": "builtin:mlp-8", "options": {}}
    content["students"] = [{"name": "small", "model": "builtin:mlp-6", "fit": {"epochs": 1}, "distill": {}}]
    recipe, folder = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(tomli_w.dumps(content))
    first, second = started(recipe, folder)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr[-2000:] + second.stderr[-2000:]
    assert "teacher done" in first.stderr
    assert "epoch 3/3" in first.stderr
    assert "epoch" not in second.stderr
    about = json.loads((folder / "run.json").read_text())
    assert about["processes"] == 2
    stages = about["stages"]
    assert {stage["result"]["processes"] for stage in stages.values()} == {2}
    weights = (folder / "teacher" / "model.safetensors").read_bytes()

    # a student more: the teacher is not trained again, by either, and fewer processes are no reason to
    content["students"].append({"name": "other", "model": "builtin:mlp-5", "fit": {"epochs": 1}})
    recipe.write_text(tomli_w.dumps(content))
    first, second = started(recipe, folder)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr[-2000:] + second.stderr[-2000:]
    assert "teacher unchanged" in first.stderr
    assert "students/other done" in first.stderr
    assert (folder / "teacher" / "model.safetensors").read_bytes() == weights
    now = json.loads((folder / "run.json").read_text())["stages"]
    assert {name: now[name]["inputs"] for name in stages} == {name: stage["inputs"] for name, stage in stages.items()}


def test_what_two_processes_cannot_share_is_told_once(tmp_path: Path) -> None:
    content = tomllib.loads(RECIPE)
    content["teacher"]["fit"]["batch_size"] = 33
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(tomli_w.dumps(content))
    command = [sys.executable, "-m", "compress", "run", str(recipe), "--out", str(tmp_path / "run")]
    first, second = in_two_processes(command)
    assert first.returncode == 2
    assert "'teacher': fit.batch_size = 33 is what all processes see together" in first.stderr
    assert "batch_size" not in second.stderr


def started(recipe: Path, folder: Path) -> list[subprocess.CompletedProcess[str]]:
    script = TRAIN_ONLY.format(tests=str(HERE), recipe=str(recipe), folder=str(folder))
    return in_two_processes([sys.executable, "-c", script])
