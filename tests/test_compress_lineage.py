"""A model of an earlier run must not have been trained on what it is judged by."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_run import content, train_content

from compress.lineage import seen_before, with_lineage
from compress.recipe_file import parse_recipe
from serve.errors import UserError
from train.data import load_data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its teacher was trained a second time on calibration and validation, its student was not trained at all."""
    folder = tmp_path_factory.mktemp("earlier") / "run"
    recipe = content()
    recipe["teacher"]["fit"] |= {"epochs": 1, "final_refit": True}
    recipe["students"] = [{**recipe["students"][0], "fit": {"epochs": 1}, "control": False}]
    train_content(recipe, folder)
    return folder


def notes(model: str, seed: int = 0, **data: Any) -> tuple[str, ...]:
    recipe = content()
    recipe["teacher"] = {"model": model, "fit": {"epochs": 0}}
    recipe |= {"students": [], "seed": recipe["seed"] + seed, "data": {**recipe["data"], **data}}
    parsed = parse_recipe(recipe, "recipe.toml")
    return with_lineage(parsed, load_data(parsed.data, parsed.seed, parsed.task)).notes


def test_a_model_that_saw_its_own_train_split_alone_is_taken(run: Path) -> None:
    assert notes(f"run:{run}/held_out/teacher") == ()
    assert notes(f"run:{run}/students/small") == ()


def test_a_refitted_model_has_seen_validation_and_the_one_before_is_named(run: Path) -> None:
    with pytest.raises(UserError, match=r"was trained on .* validation items") as refused:
        notes(f"run:{run}")
    assert f"run:{run}/held_out/teacher" in refused.value.hint


def test_other_splits_of_the_same_data_are_compared_item_by_item(run: Path) -> None:
    with pytest.raises(UserError, match=r"was trained on \d+ of the \d+ (validation|test) items") as refused:
        notes(f"run:{run}/held_out/teacher", seed=1)
    assert "draw the splits as that run did" in refused.value.hint
    shown = int(str(refused.value).split(" of the ")[0].rsplit(" ", 1)[1].replace(",", ""))
    assert shown > 0


def test_a_teacher_that_a_search_is_given_is_looked_at_too(run: Path) -> None:
    parsed = parse_recipe(content(), "recipe.toml")
    folder = run / "held_out" / "teacher"
    assert seen_before(folder, load_data(parsed.data, parsed.seed, parsed.task)) == []
    with pytest.raises(UserError, match=r"was trained on \d+ of the \d+ (validation|test) items"):
        seen_before(folder, load_data(parsed.data, parsed.seed + 1, parsed.task))


def test_what_taught_it_is_looked_at_too(run: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(run, second)
    about = json.loads((second / "run.json").read_text())
    about["recipe"]["teacher"] |= {"model": f"run:{run}", "fit": {"epochs": 0}}
    (second / "run.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"was trained on .* validation items") as refused:
        notes(f"run:{second}/students/small")
    assert str(run) in str(refused.value)


def test_what_cannot_be_known_is_noted(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(run / "students" / "small", alone)
    assert "on which items it was trained is not known" in notes(f"run:{alone}")[0]
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    about = json.loads((copy / "run.json").read_text())
    about["data"]["splits"]["test"] = "0" * 64
    (copy / "run.json").write_text(json.dumps(about))
    assert "its data have changed since" in notes(f"run:{copy}/students/small")[0]
