"""How long a recipe would take: what is added up, and that a few batches are really timed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from command_line import take, words_of
from tiny_run import content

from compress.init import estimate as module
from compress.init.estimate import Estimate, Pace, estimate, minutes, training
from compress.init.write import how_long
from compress.recipe import Recipe
from compress.recipe_file import load_recipe


def test_a_real_recipe_is_timed_and_more_epochs_take_longer() -> None:
    recipe = Recipe.model_validate(content())
    began = time.perf_counter()
    found = estimate(recipe)
    spent = time.perf_counter() - began
    assert list(found.models) == ["teacher", *(student.name for student in recipe.with_controls().students)]
    assert all(0 < seconds < 3600 for seconds in [*found.models.values(), found.evidence])
    assert spent < 60
    assert "teacher" in found.told()


def test_what_is_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.model_validate(content())
    pace = Pace(learn=2.0, answer=1.0, alone=0.0)
    monkeypatch.setattr(module, "_timed", lambda *_: (None, pace))
    found = estimate(recipe)
    data = module.load_data(recipe.data, recipe.seed, recipe.task)
    items, held = len(data.splits["train"]), len(data.splits["validation"])
    teacher = recipe.teacher.fit.epochs * (2 * items + held)
    assert found.models["teacher"] == training(recipe.teacher, pace, items, held) == teacher
    student = recipe.students[0]
    assert student.distill is not None
    alone, taught = found.models[f"{student.name}-alone"], found.models[student.name]
    asked = student.fit.epochs if student.fit.augment.is_active else 1
    assert alone == student.fit.epochs * (2 * items + held)
    assert taught - alone == asked * items


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(1, "a few s"), (12, "10 s"), (54, "55 s"), (100, "2 min"), (80 * 60, "80 min"), (3 * 3600, "3.0 h")],
)
def test_a_guess_is_told_as_one(seconds: float, told: str) -> None:
    assert minutes(seconds) == told
    assert (
        Estimate({"teacher": seconds}, 0.0)
        .told()
        .startswith(f"about {told} on this machine, as busy as it is now: teacher {told}")
    )


def test_a_long_run_comes_with_a_shorter_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "recipe.toml"
    out.write_text(tomli_w.dumps(content()))
    for seconds, expected in ((3000.0, False), (9000.0, True)):
        monkeypatch.setattr(module, "estimate", lambda _, seconds=seconds: Estimate({"teacher": seconds}, 0.0))
        first, *rest = how_long(out).splitlines()
        assert minutes(seconds) in first
        assert bool(rest) == expected
    words = words_of(rest[0].partition(": ")[2])
    assert take(words[1:]).name == "run"
    changes = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    changed = load_recipe(out, changes)
    assert {model.fit.epochs for model in (changed.teacher, *changed.students)} == {1}


def test_a_model_that_is_not_there_is_no_reason_to_lose_the_recipe(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "name": "x",
        "task": "text",
        "data": {"source": "csv:nowhere.csv"},
        "teacher": {"model": "builtin:textcnn"},
        "accept": {"max_drop_points": 2.0},
    }
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(recipe))
    assert "how long that takes is not known: " in how_long(tmp_path / "recipe.toml")
