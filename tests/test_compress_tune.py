"""`limbeck tune` on the digits: what it refuses, what it leaves, kill -9, two at once."""

from __future__ import annotations

import csv
import json
import re
import signal
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import pytest
import torch
from forks import FORKS, limbeck, running

from compress import cli
from compress.recipe_file import as_change, load_recipe, parse_recipe
from compress.tune import command as tuning
from compress.tune.command import tune
from compress.tune.objective import RecipeObjective
from serve.errors import UserError
from train.data import Data, load_data
from train.distill import DistillConfig
from train.sources import Items
from train.sources.joined import join
from train.unlabelled import Pool

RECIPE = """# my digits
name = "tiny"
seed = 3

[data]
source = "digits"
test = 0.3
validation = 0.15  # of all
calibration = 50

[teacher]
model = "builtin:cnn-4"
options = { hidden = 8 }

[teacher.fit]
epochs = 2  # few
batch_size = 64
learning_rate = 5e-3  # high

[[students]]
name = "small"
model = "builtin:cnn-2"
options = { hidden = 8 }
fit = { epochs = 1, batch_size = 64, learning_rate = 5e-3 }
distill = { temperature = 3.0, alpha = 0.8 }  # soft

[accept]
max_drop_points = 60.0

[tune]  # ours
model = "teacher"
trials = 3
[tune.search]
"teacher.fit.learning_rate" = { low = 3e-3, high = 3e-2, log = true }
"teacher.fit.epochs" = { low = 1, high = 3, step = 1 }
"teacher.options" = [{ hidden = 8 }, { hidden = 16 }]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def quiet(_: str) -> None:
    pass


def trials_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "trials.json").read_text())["trials"]
    return found


def search(**entries: Any) -> tuple[str, ...]:
    """--set for a search over a student's fields; `__` is a dot."""
    fields = {f"students.small.{name.replace('__', '.')}": entry for name, entry in entries.items()}
    return ("tune.model=small", as_change("tune.search", fields))


class Forbidden(Sequence[bytes]):
    """Items that nobody may look at."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        raise AssertionError("test or calibration was looked at")

    def __iter__(self) -> Iterator[bytes]:
        raise AssertionError("test or calibration was looked at")


@pytest.fixture
def hidden_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test and calibration raise as soon as an item of them is read."""

    def load(*arguments: Any) -> Data:
        data = load_data(*arguments)
        hidden = {name: data.splits[name] for name in ("test", "calibration")}
        covered = {name: Items(Forbidden(len(items)), items.labels) for name, items in hidden.items()}
        return replace(data, splits={**data.splits, **covered})

    monkeypatch.setattr(tuning, "load_data", load)


@pytest.mark.usefixtures("hidden_test")
def test_a_search_leaves_the_best_recipe_its_trials_and_a_page(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, told = tune(recipe, tmp_path / "out", say=quiet)
    trials = trials_of(folder)
    complete = [trial for trial in trials if trial["state"] == "complete"]
    best = max(complete, key=lambda trial: trial["value"])
    assert [trial["number"] for trial in trials] == [1, 2, 3]
    for trial in complete:  # the epoch that was kept is the best, and scored as it would be served
        assert trial["value"] == pytest.approx(max(trial["steps"].values()), abs=1e-6)
        assert len(trial["steps"]) == trial["values"]["teacher.fit.epochs"]
    assert f"{best['value']:.4f}" in told
    assert "optimistic" in told

    text = (folder / "best.toml").read_text()
    content = tomllib.loads(text)
    for comment in ("# my digits", "# of all", "# few", "# high", "# soft"):
        assert comment in text
    assert "tune" not in content
    values = best["values"]
    assert content["teacher"]["fit"]["learning_rate"] == values["teacher.fit.learning_rate"]
    assert content["teacher"]["fit"]["epochs"] == values["teacher.fit.epochs"]
    assert content["teacher"]["options"] == values["teacher.options"]

    rows = list(csv.DictReader((folder / "trials.csv").open(newline="")))
    assert [float(row["accuracy"]) for row in rows if row["accuracy"]] == [trial["value"] for trial in complete]
    page = (folder / "tune.html").read_text()
    assert "too few to say" in page
    assert not re.search(r"(src|href)=", page)

    monkeypatch.setattr(sys, "argv", ["limbeck", "run", str(folder / "best.toml"), "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert shown["teacher"]["fit"]["learning_rate"] == values["teacher.fit.learning_rate"]

    best_text = (folder / "best.toml").read_text()
    for change in ("tune.model=small", "seed=4", "tune.sampler=grid"):
        with pytest.raises(UserError, match=r"another search|depends on|no grid"):
            tune(recipe, folder, changes=(change,), say=quiet)
    assert (folder / "best.toml").read_text() == best_text
    with pytest.raises(UserError, match="another search"):
        tune(recipe, folder, storage=str(tmp_path / "other.log"), say=quiet)

    before = trials_of(folder)
    tune(recipe, folder, changes=("tune.trials=4",), say=quiet)
    assert trials_of(folder)[:3] == before
    assert len(trials_of(folder)) == 4


@pytest.mark.usefixtures("hidden_test")
def test_a_students_teacher_is_trained_once_and_a_grid_over_folds_is_judged_on_each_item(
    recipe: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    settings = ("tune.sampler=grid", "tune.folds=2", "tune.metric=macro_f1", "tune.trials=1")
    changes = (*search(distill__temperature=[1.0, 4.0]), *settings)
    folder, told = tune(recipe, tmp_path / "out", changes=changes, say=said.append)
    trials = trials_of(folder)
    assert [trial["values"]["students.small.distill.temperature"] for trial in trials] == [1.0, 4.0]
    assert all(trial["state"] == "complete" and list(trial["steps"]) == ["1", "2"] for trial in trials)
    assert all(trial["value"] == trial["steps"]["2"] for trial in trials)
    assert sum("training the teacher" in line for line in said) == 1
    assert "trained on items of the held-out folds" in told
    assert tomllib.loads((folder / "best.toml").read_text())["students"][0]["distill"]["alpha"] == 0.8


def test_the_teacher_of_a_run_is_taken_instead_of_a_new_one(recipe: Path, tmp_path: Path) -> None:
    changes = (*search(fit__epochs=[1, 2]), "tune.trials=1")
    made, _ = tune(recipe, tmp_path / "made", changes=changes, say=quiet)
    run = tmp_path / "run"
    run.mkdir()
    next(path for path in (made / "teachers").iterdir() if path.is_dir()).rename(run / "teacher")
    said: list[str] = []
    taken, _ = tune(recipe, tmp_path / "taken", changes=changes, teacher_from=run, say=said.append)
    assert not any("training the teacher" in line for line in said)
    assert "on which items it was trained is not known" in said[0]  # there is no run.json
    assert [trial["value"] for trial in trials_of(taken)] == [trial["value"] for trial in trials_of(made)]
    for folder, change, message in (
        (run, "teacher.model=builtin:cnn-8", "the recipe's is 'builtin:cnn-8'"),
        (tmp_path, "seed=3", "there is no teacher in"),
    ):
        with pytest.raises(UserError, match=message):
            tune(recipe, tmp_path / "no", changes=(*changes, change), teacher_from=folder, say=quiet)


def test_trials_are_judged_on_validation_and_so_never_refitted(recipe: Path, tmp_path: Path) -> None:
    changes = (*search(fit__epochs=[1, 2]), "tune.trials=1")
    refits = ("teacher.fit.final_refit=true", "students.small.fit.final_refit=true")
    plain, _ = tune(recipe, tmp_path / "plain", changes=changes, say=quiet)
    asked, _ = tune(recipe, tmp_path / "asked", changes=(*changes, *refits), say=quiet)
    values = [trial["value"] for trial in trials_of(plain)]
    assert [trial["value"] for trial in trials_of(asked)] == values
    best = tomllib.loads((asked / "best.toml").read_text())  # the run that judges it refits
    assert best["teacher"]["fit"]["final_refit"]
    with pytest.raises(UserError, match="makes no trial better or worse"):
        tune(recipe, tmp_path / "no", changes=search(fit__final_refit=[True, False]), say=quiet)

    run = tmp_path / "run"  # whose teacher was refitted: trials learn from the one that never saw validation
    (run / "held_out").mkdir(parents=True)
    next(path for path in (plain / "teachers").iterdir() if path.is_dir()).rename(run / "held_out" / "teacher")
    (run / "teacher").mkdir()
    taken, _ = tune(recipe, tmp_path / "taken", changes=changes, teacher_from=run, say=quiet)
    assert [trial["value"] for trial in trials_of(taken)] == values


def test_a_trial_that_fails_is_recorded_and_when_all_do_the_first_error_is_shown(recipe: Path, tmp_path: Path) -> None:
    changes = ("tune.trials=2", 'tune.search={"teacher.fit.learning_rate"=[1e30, 2e30]}')
    with pytest.raises(UserError, match=r"all 2 trials failed; the first: .*loss"):
        tune(recipe, tmp_path / "out", changes=changes, say=quiet)
    assert [trial["state"] for trial in trials_of(tmp_path / "out")] == ["failed"] * 2
    assert not (tmp_path / "out" / "best.toml").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("students.small.fit.class_weights={x=2.0}", "the data have no label 'x'"),
        ('students.small.distill={features=[{loss="relations",weight=1.0}]}', "no transformer layers to learn from"),
        ("students.small.fit.augment={hue=0.1}", "sees these images in grey"),
    ],
)
def test_no_teacher_is_trained_for_a_student_that_cannot_be(
    recipe: Path, tmp_path: Path, change: str, message: str
) -> None:
    said: list[str] = []
    changes = (*search(fit__clip=[0.5, 1.0]), "tune.trials=2", change)
    with pytest.raises(UserError, match=f"all 2 trials failed; the first: .*{message}"):
        tune(recipe, tmp_path / "out", changes=changes, say=said.append)
    assert not any("training the teacher" in line for line in said)


def test_a_search_minds_no_other_student(recipe: Path, tmp_path: Path) -> None:
    other = '[[students]]\nname = "other"\nmodel = "builtin:cnn-2"\nfit = { class_weights = { x = 2.0 } }\n'
    recipe.write_text(RECIPE.replace("[accept]", f"{other}[accept]"))
    tune(recipe, tmp_path / "out", changes=('tune.search={"teacher.fit.epochs"=[1, 2]}', "tune.trials=1"), say=quiet)


WRONG: dict[str, tuple[tuple[str, ...], str, str]] = {
    "unknown model": (("tune.model=smal",), "tune.model = 'smal' is no model", "did you mean 'small'"),
    "a control has no table": (("tune.model=small-alone",), "'small-alone' is no model", "did you mean 'small'"),
    "empty search": (("tune.search={}",), "tune.search is empty", ""),
    "unknown key of [tune]": (("tune.trails=3",), "unknown key 'tune.trails'", "did you mean 'trials'"),
    "unknown field": (
        ('tune.search={"teacher.fit.learnin_rate"=[1, 2]}',),
        "unknown key 'teacher.fit.learnin_rate'",
        "did you mean 'learning_rate'",
    ),
    "wrong type": (('tune.search={"teacher.fit.epochs"={low=1.0, high=4.0}}',), "whole number", ""),
    "out of bounds": (('tune.search={"teacher.fit.warmup"={low=0.5, high=1.0}}',), "warmup", ""),
    "unknown student": (
        (*search()[:1], 'tune.search={"students.smal.fit.clip"=[0, 1]}'),
        "no student 'smal'",
        "'small'",
    ),
    "another model's field": (('tune.search={"students.small.fit.clip"=[0, 1]}',), "depends on", "teacher.fit"),
    "no field of training": (('tune.search={"accept.max_drop_points"=[1, 2]}',), "depends on", "teacher.fit"),
    "one fold": (("tune.folds=1",), "folds = 1 leaves nothing to judge on", "expected 0, 2 or more"),
    "leave one out of many": (("tune.folds=leave-one-out",), r"for each of 3 trials", "folds = 5"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_searched_is_refused_before_training(recipe: Path, tmp_path: Path, name: str) -> None:
    changes, message, hint = WRONG[name]
    with pytest.raises(UserError, match=message) as raised:
        tune(recipe, tmp_path / "out", changes=changes, say=quiet)
    assert hint in raised.value.hint
    assert not list(tmp_path.glob("out/journal.log"))


def test_a_recipe_without_a_search_is_told_how_to_write_one(tmp_path: Path) -> None:
    path = tmp_path / "plain.toml"
    path.write_text(RECIPE.partition("[tune]")[0])
    with pytest.raises(UserError, match=r"has no \[tune\] table") as raised:
        tune(path, tmp_path / "out", say=quiet)
    example = raised.value.hint.partition("\n")[2]
    path.write_text(path.read_text() + example)
    assert load_recipe(path).tune is not None


def test_a_run_directory_is_not_written_into(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="is a run directory"):
        tune(recipe, tmp_path, say=quiet)


def test_two_at_once_share_the_trials_and_a_killed_one_is_made_good(recipe: Path, tmp_path: Path) -> None:
    folder, files = tmp_path / "out", [tmp_path / "first", tmp_path / "second"]
    command = ["tune", str(recipe), "--out", str(folder), "--trials", "8"]
    first, second = (FORKS.Process(target=limbeck, args=(command, file)) for file in files)
    with running([first, second]):
        while first.is_alive() and "\ntrial " not in (files[0].read_text() if files[0].exists() else ""):
            time.sleep(0.05)
        first.kill()
        first.join()
        second.join()
    said = files[1].read_text()
    assert (first.exitcode, second.exitcode) == (-signal.SIGKILL, 0), said
    assert "Traceback" not in said
    trials = trials_of(folder)
    assert [trial["number"] for trial in trials] == list(range(1, 9))
    assert {trial["state"] for trial in trials} <= {"complete", "pruned"}
    assert said.count("\ntrial ") < 8  # the first had ended one of them
    assert load_recipe(folder / "best.toml").tune is None


def test_of_a_fold_no_unlabelled_item_is_learned_from_that_is_held_out(recipe: Path, tmp_path: Path) -> None:
    parsed = load_recipe(recipe)
    data = load_data(parsed.data, parsed.seed)
    validation = data.splits["validation"]
    pool = Pool(join([data.splits["train"].take(np.arange(5)), validation.take(np.arange(4))]), "these")
    assert parsed.tune is not None
    objective = RecipeObjective(tomllib.loads(RECIPE), "tiny", parsed.tune, replace(data, unlabelled=pool), tmp_path)
    train = data.splits["train"]
    both = objective._lesson(DistillConfig(), train, [validation])
    assert [*both.content] == [*train.content, *train.content[:5]]
    assert len(objective._lesson(DistillConfig(), train, [])) == len(train) + 9
    alone = objective._lesson(DistillConfig(items="unlabelled", alpha=1.0), train, [])
    assert [*alone.content] == [*pool.items.content]
    assert objective._lesson(DistillConfig(items="labelled"), train, []) is train


def test_equal_items_are_not_in_two_parts_of_a_fold(recipe: Path, tmp_path: Path) -> None:
    content = tomllib.loads(RECIPE)
    content["tune"]["folds"] = 3
    content["tune"]["search"] = {"teacher.fit.epochs": [1, 2]}
    parsed = parse_recipe(content, "tiny")
    assert parsed.tune is not None
    data = load_data(parsed.data, parsed.seed)
    twice = join([data.splits["train"], data.splits["train"].take(np.arange(3))])
    data = replace(data, splits={**data.splits, "train": twice})
    with pytest.raises(UserError, match="one fold would train on it and be judged by it"):
        RecipeObjective(content, "tiny", parsed.tune, data, tmp_path)
    content["data"]["repair"] = {"duplicates": "drop"}
    objective = RecipeObjective(content, "tiny", parsed.tune, data, tmp_path)
    for rest, held in objective._folds:
        train, judged = ({objective._pool.content[int(row)] for row in rows} for rows in (rest, held))
        assert not train & judged


def test_all_that_teach_a_tuned_student_are_trained_once(recipe: Path, tmp_path: Path) -> None:
    content = tomllib.loads(RECIPE)
    content["teachers"] = [{"name": "second", "model": "teacher", "seed_offset": 9, "fit": {"epochs": 1}}]
    middle = {**content["students"][0], "name": "middle", "distill": {"teachers": ["second"]}}
    content["students"][0]["distill"]["teachers"] = ["middle", "teacher"]
    content["students"].append(middle)
    parsed = parse_recipe(content, "tiny")
    assert parsed.tune is not None
    data, said = load_data(parsed.data, parsed.seed), list[str]()
    objective = RecipeObjective(content, "tiny", parsed.tune, data, tmp_path / "tune", say=said.append)
    small = parsed.students[0]
    first, again = (objective._teachers_of(parsed, small) for _ in range(2))
    assert [model.spec.model for model in first] == ["builtin:cnn-2", "builtin:cnn-4"]
    assert [line.partition(",")[0] for line in said] == ["training the teacher", "training middle", "training second"]
    assert all(torch.equal(*pair) for pair in zip(first[0].parameters(), again[0].parameters(), strict=True))
    assert len([*(tmp_path / "tune/teachers").glob("*/spec.json")]) == 3
