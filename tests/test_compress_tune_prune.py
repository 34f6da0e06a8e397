"""`limbeck tune` judges a student as the run would make it: pruned, and taught by the items that it says."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_compress_as_it_is import recipe_of
from test_compress_tune import RECIPE
from text_models import tiny_folder

from compress.recipe_file import parse_recipe
from compress.tune.check import check_tune
from compress.tune.objective import RecipeObjective
from serve.errors import UserError
from serve.runner import Runner
from train.data import load_data
from train.fit import fit
from train.sources import Items
from train.torch_runner import TorchRunner
from train.unlabelled import Pool


def searched(tmp_path: Path, search: dict[str, Any]) -> dict[str, Any]:
    content = recipe_of(tmp_path, f"hf:{tiny_folder(tmp_path / 'model', labels=('pos', 'neg'))}")
    student = {"name": "small", "model": "teacher-layers:2", "fit": {"epochs": 0}}
    return content | {"students": [student], "tune": {"model": "small", "trials": 2, "search": search}}


def test_a_trial_is_judged_without_the_embeddings_that_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = searched(tmp_path, {"students.small.prune.vocabulary": [15, "seen"]})
    recipe, config = check_tune(content, "test")
    assert config is not None
    data = load_data(recipe.data, recipe.seed, recipe.task)
    judged: list[int] = []

    def score_items(runner: Runner, items: Items) -> np.ndarray:
        assert isinstance(runner, TorchRunner)
        judged.append(runner._classifier.params)
        return np.zeros((len(items), 2), dtype=np.float32)

    monkeypatch.setattr("compress.tune.objective.score_items", score_items)
    objective = RecipeObjective(content, "test", config, data, tmp_path / "tune")
    for values in ({}, {"students.small.prune.vocabulary": "seen"}, {"students.small.prune.vocabulary": 18}):
        objective(values, lambda step, value: None)
    whole, seen, more = judged
    assert seen < more < whole
    assert (more - seen) % 32 == 0  # rows of embeddings


def test_a_search_over_what_is_pruned_of_a_teacher_is_refused(tmp_path: Path) -> None:
    content = searched(tmp_path, {"teacher.prune.vocabulary": [15, "seen"]})
    parse_recipe({key: value for key, value in content.items() if key != "tune"}, "test")
    with pytest.raises(UserError, match=r"nothing that the training of 'small' depends on"):
        check_tune(content, "test")


def test_each_trial_learns_from_the_items_that_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = tomllib.loads(RECIPE)
    content["data"]["unlabelled"] = {"source": "digits"}
    content["tune"] = {"model": "small", "search": {"students.small.distill.items": ["all", "unlabelled"]}}
    parsed = parse_recipe(content, "tiny")
    assert parsed.tune is not None
    data = load_data(parse_recipe(tomllib.loads(RECIPE), "tiny").data, parsed.seed)
    total = len(data.splits["train"])
    data = replace(data, unlabelled=Pool(data.splits["train"].take(np.arange(70)), "these"))
    objective = RecipeObjective(content, "tiny", parsed.tune, data, tmp_path / "tune")
    seen: list[int] = []

    def recorded(network: Any, config: Any, train: Any, *others: Any) -> Any:
        seen.append(len(train))
        return fit(network, config, train, *others)

    objective.teacher_of(parsed)
    monkeypatch.setattr("compress.tune.objective.fit", recorded)
    for items in ("all", "unlabelled"):
        values = {"students.small.distill.items": items, "students.small.distill.alpha": 1.0}
        objective(values, lambda step, value: None)
    assert seen == [total + 70, 70]
