"""The search with objectives that cost nothing: what is counted, drawn, pruned, and shared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from serve.errors import UserError
from train.tuning.config import TuneConfig
from train.tuning.records import TrialRecord, best_of
from train.tuning.storage import JOURNAL, open_storage, shown
from train.tuning.study import Objective, Place, Report, Search

optuna.logging.set_verbosity(optuna.logging.WARNING)
ROOT = Path(__file__).resolve().parent.parent
SEARCH = {"x": {"low": -1.0, "high": 1.0}, "kind": ["a", "b"]}
# Another process at the same storage: it says when it has begun a trial, then waits to be killed, or goes on.
OTHER = """
import sys, time
from pathlib import Path
sys.path[:0] = ["tests", "."]
from test_train_tuning_study import search_in, good
def objective(values, report):
    print("begun", flush=True)
    time.sleep(float(sys.argv[2]))
    return good(values, report)
search_in(Path(sys.argv[1]), trials=6).run(objective, lambda record, records: None)
"""


def search_in(folder: Path, storage: str | None = None, mark: str = "one", **config: Any) -> Search:
    settings = TuneConfig(**{"model": "teacher", "search": SEARCH, "sampler": "random", **config})
    return Search(Place(open_storage(storage, folder), "test", folder, shown(storage, folder)), settings, 5, mark)


def good(values: dict[str, Any], report: Report) -> float:
    return 1 - values["x"] ** 2 - (0.1 if values["kind"] == "b" else 0)


def run(search: Search, objective: Objective = good) -> list[TrialRecord]:
    search.run(objective, lambda record, records: None)
    return search.records()


def drawn_by(records: list[TrialRecord]) -> list[dict[str, Any]]:
    return [record.values for record in records]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_the_same_seed_draws_the_same_also_where_it_was_stopped(tmp_path: Path, sampler: str) -> None:
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
    whole = run(search_in(tmp_path / "whole", sampler=sampler, trials=14))
    run(search_in(tmp_path / "halves", sampler=sampler, trials=6))

    def stopped(values: dict[str, Any], report: Report) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(search_in(tmp_path / "halves", sampler=sampler, trials=14), stopped)
    halves = run(search_in(tmp_path / "halves", sampler=sampler, trials=14))
    assert drawn_by(whole) == drawn_by(halves)
    assert len({record.values["x"] for record in whole}) == 14


def test_a_grid_tries_each_combination_once(tmp_path: Path) -> None:
    search = {"x": {"low": -1.0, "high": 1.0, "step": 0.5}, "kind": ["a", "b"]}
    records = run(search_in(tmp_path, sampler="grid", search=search, trials=2))
    assert len({(record.values["x"], record.values["kind"]) for record in records}) == len(records) == 10
    best = best_of(records)
    assert best is not None
    assert (best.values, best.value) == ({"x": 0.0, "kind": "a"}, 1.0)


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(tmp_path: Path) -> None:
    def fails_below_zero(values: dict[str, Any], report: Report) -> float:
        if values["x"] < 0:
            raise UserError("the loss is not a number", "lower the learning rate")
        return float("nan") if values["kind"] == "b" else 0.5

    records = run(search_in(tmp_path, trials=12), fails_below_zero)
    failed = {record.error for record in records if record.state == "failed"}
    assert failed == {"the loss is not a number", "the value is nan"}
    assert len(records) == 12


def test_what_is_worse_than_the_median_is_pruned_unless_it_is_switched_off(tmp_path: Path) -> None:
    def rises(values: dict[str, Any], report: Report) -> float:
        for epoch in range(1, 5):
            report(epoch, epoch * values["x"])
        return float(values["x"])

    records = run(search_in(tmp_path, storage=str(tmp_path / "a.log"), trials=12), rises)
    pruned = [record for record in records if record.state == "pruned"]
    assert pruned
    assert all(record.value is None and set(record.steps) == {1, 2} for record in pruned)
    unpruned = run(search_in(tmp_path, storage=str(tmp_path / "b.log"), trials=12, prune=False), rises)
    assert {record.state for record in unpruned} == {"complete"}


def test_a_storage_of_another_search_is_refused(tmp_path: Path) -> None:
    run(search_in(tmp_path, trials=1))
    with pytest.raises(UserError, match="another recipe, data or search"):
        search_in(tmp_path, mark="two")


@pytest.mark.parametrize(
    "storage", ["nowhere/at/all.log", "sqlite:///nowhere/at/all.db", "nosuchdb://user:secret@host/x"]
)
def test_a_storage_that_cannot_be_opened_is_explained(tmp_path: Path, storage: str) -> None:
    with pytest.raises(UserError, match="cannot open the storage") as raised:
        search_in(tmp_path, storage=storage)
    assert "secret" not in raised.value.message


def test_a_database_serves_as_well(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tune.db'}"
    run(search_in(tmp_path, storage=url, trials=2))
    assert len(run(search_in(tmp_path, storage=url, trials=4))) == 4


def test_a_line_that_was_torn_off_costs_no_trial(tmp_path: Path) -> None:
    before = drawn_by(run(search_in(tmp_path, trials=3)))
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes() + b'{"op_code":8,"worker_id":"x","tri')
    assert drawn_by(run(search_in(tmp_path, trials=4)))[:3] == before
    assert len(search_in(tmp_path, trials=4).records()) == 4


def test_a_journal_that_is_damaged_in_the_middle_is_told_by_line_and_left_as_it_is(tmp_path: Path) -> None:
    before = drawn_by(run(search_in(tmp_path, trials=3)))
    journal = tmp_path / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:8], b"\x00" * 40 + b"\n", *lines[8:]])
    journal.write_bytes(damaged)
    with pytest.raises(UserError, match="line 9 is no JSON") as raised:
        search_in(tmp_path, trials=4)
    assert "delete line 9" in raised.value.hint
    assert journal.read_bytes() == damaged
    journal.write_bytes(b"".join(lines))  # as the hint says
    assert drawn_by(run(search_in(tmp_path, trials=4)))[:3] == before


def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("one\ntwo", encoding="utf-8")
    with pytest.raises(UserError, match="storage"):
        search_in(tmp_path, storage=str(mine))
    assert mine.read_text(encoding="utf-8") == "one\ntwo"


def other(folder: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OTHER, str(folder), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)


def test_two_processes_share_the_number_of_trials_and_a_killed_one_loses_only_its_own(tmp_path: Path) -> None:
    killed = other(tmp_path, 600)
    assert killed.stdout is not None
    with killed.stdout:
        assert killed.stdout.readline() == "begun\n"
        alive = search_in(tmp_path, trials=3)
        assert [record.state for record in run(alive)].count("running") == 1  # it is alive: its trial counts
        killed.kill()
        killed.wait()
    with alive.alone() as records:
        assert [record.state for record in records] == ["complete"] * 2
    helper = other(tmp_path, 0.05)
    assert helper.stdout is not None
    with helper.stdout:
        helper.stdout.readline()
        run(search_in(tmp_path, trials=6))
        assert helper.wait() == 0
    with alive.alone() as records:
        assert [record.state for record in records] == ["complete"] * 6
        assert len({record.values["x"] for record in records}) == 6
