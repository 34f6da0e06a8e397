"""A run in two processes: the first does all of it, the second trains with it, and both agree on what is done."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from forks import free_port, in_two_processes, limbeck
from safetensors.numpy import load_file
from tiny_run import RECIPE

from compress.console import Console
from compress.pipeline import describe
from compress.processes import check_together, follow, leading
from compress.recipe_file import load_recipe, parse_recipe
from compress.rundir import open_run
from compress.stages.context import RunContext, held_out
from compress.stages.training import train_models
from serve.errors import UserError
from train.data import load_data
from train.processes import world

NEXT = "what comes next:"
PACKAGING = 2.0  # seconds: what a run does after training, while the second process hears that this is done


def train_only(folder: Path, recipes: Sequence[tuple[Path, str]]) -> None:
    """As `limbeck run`, but without what a test of processes can do without: packages and what is measured of them.

    Several recipes one after the other, each on a port of its own, and a copy of what each left.
    """
    for path, port in recipes:
        os.environ["MASTER_PORT"] = port
        recipe = load_recipe(path)
        if world().leads:
            data = load_data(recipe.data, recipe.seed, recipe.task)
            about, console = describe(recipe, data, None), Console()
            with leading(recipe) as announce, open_run(folder, about, console.stage, announce) as run:
                train_models(RunContext(recipe, data, run, console))
                time.sleep(PACKAGING)
            shutil.copytree(folder, path.with_suffix(".run"))
        else:
            follow(recipe, folder)
        print(NEXT, file=sys.stderr)


@dataclass(frozen=True)
class Ran:
    """What two processes left of a recipe, and what they said."""

    folder: Path
    first: str
    second: str

    @property
    def about(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        return found

    @property
    def stages(self) -> dict[str, Any]:
        found: dict[str, Any] = self.about["stages"]
        return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Ran]:
    """A recipe with a refitted student, and the same with another student, in the same run directory."""
    place = tmp_path_factory.mktemp("two")
    content = tomllib.loads(RECIPE)
    content["teacher"] |= {"model": "builtin:mlp-8", "options": {}}
    small = {"name": "small", "model": "builtin:mlp-6", "fit": {"epochs": 2, "final_refit": True}, "distill": {}}
    content["students"] = [small]
    recipes = [place / "one.toml", place / "more.toml"]
    recipes[0].write_text(tomli_w.dumps(content))
    content["students"].append({"name": "other", "model": "builtin:mlp-5", "fit": {"epochs": 1}})
    recipes[1].write_text(tomli_w.dumps(content))
    ended = in_two_processes(place, train_only, place / "run", [(recipe, free_port()) for recipe in recipes])
    assert [process.code for process in ended] == [0, 0], "".join(process.said[-3000:] for process in ended)
    said = [process.said.split(NEXT) for process in ended]
    one, more = (Ran(recipe.with_suffix(".run"), said[0][at], said[1][at]) for at, recipe in enumerate(recipes))
    return one, more


def test_the_second_process_trains_and_nothing_else(runs: tuple[Ran, Ran]) -> None:
    ran = runs[0]
    assert "teacher done" in ran.first
    assert "epoch 3/3" in ran.first
    assert "epoch" not in ran.second
    assert ran.about["processes"] == 2
    assert {stage["result"]["processes"] for stage in ran.stages.values()} == {2}


def test_two_processes_refit(runs: tuple[Ran, Ran]) -> None:
    stages = runs[0].stages
    before, after = (stages[name]["result"] for name in (held_out("students/small"), "students/small"))
    assert before["refit"] is None
    assert after["refit"]["epochs"] == before["best_epoch"] == after["best_epoch"]
    assert after["refit"]["items"] > after["refit"]["items_before"]
    weights = [
        load_file(runs[0].folder / name / "model.safetensors")
        for name in (held_out("students/small"), "students/small")
    ]
    assert any(not np.array_equal(weights[0][name], value) for name, value in weights[1].items())


def test_with_one_student_more_nothing_else_is_trained_again(runs: tuple[Ran, Ran]) -> None:
    one, more = runs
    assert "teacher unchanged" in more.first
    assert "students/small unchanged" in more.first
    assert "students/other done" in more.first
    weights = [(ran.folder / "teacher" / "model.safetensors").read_bytes() for ran in runs]
    assert weights[0] == weights[1]
    inputs = {name: stage["inputs"] for name, stage in one.stages.items()}
    assert {name: more.stages[name]["inputs"] for name in inputs} == inputs  # fewer processes are no reason either


def test_what_two_processes_cannot_share_is_told_once(tmp_path: Path) -> None:
    content = tomllib.loads(RECIPE)
    content["teacher"]["fit"]["batch_size"] = 33
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(tomli_w.dumps(content))
    first, second = in_two_processes(tmp_path, limbeck, ["run", str(recipe), "--out", str(tmp_path / "run")])
    assert first.code == 2
    assert second.code not in (0, 1)
    assert "'teacher': fit.batch_size = 33 is what all processes see together" in first.said
    assert second.said == ""


def test_a_model_cannot_be_split_over_one_process_nor_every_training_over_two(monkeypatch: pytest.MonkeyPatch) -> None:
    content = tomllib.loads(RECIPE)
    with pytest.raises(UserError, match="but there is one") as refused:
        check_together(parse_recipe(content, "tiny"), shard=True)
    assert "--processes 2" in refused.value.hint
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_together(parse_recipe(content, "tiny"), shard=True)
    content["students"][0]["fit"]["l1"] = 0.1
    check_together(parse_recipe(content, "tiny"), shard=False)
    with pytest.raises(UserError, match=r"'small': fit\.l1 cannot be trained with --shard"):
        check_together(parse_recipe(content, "tiny"), shard=True)
