"""`limbeck clean`: what goes, what stays, and when nothing may."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from compress import cli
from compress.cleaning import CACHES, CHECKPOINTS, WEIGHTS, WHOLE, delete, find, find_runs, size_of
from serve.errors import UserError

Clean = Callable[..., tuple[int, str, str]]


def _fill(folder: Path, *files: str) -> Path:
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run, a repetition of two, and a search, beside what is none of them."""
    folder = tmp_path / "runs"
    _fill(folder / "one", "run.json", "report.html", ".lock", ".partial/teacher-abc/checkpoints/1/weights")
    _fill(folder / "one", "teacher/model", "students/small/model", "packages/small/model.onnx", "tensorboard/t/events")
    _fill(folder / "many" / "seed-0", "run.json", "teacher/model")
    _fill(folder / "many" / "seed-1", "run.json", "teacher/model")
    _fill(folder / "search-tune", "trials.json", "teachers/abc/model", "best.toml")
    _fill(folder / "notes", "teacher/mine")
    return folder


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Clean:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["limbeck", "clean", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capfd.readouterr()

    return call


def _names(runs: Path) -> set[str]:
    return {path.relative_to(runs).as_posix() for path in runs.rglob("*")}


def test_runs_are_found_also_within_repetitions_and_nothing_else_is(runs: Path) -> None:
    assert [path.relative_to(runs).as_posix() for path in find_runs(runs)] == [
        "many/seed-0",
        "many/seed-1",
        "one",
        "search-tune",
    ]
    assert find_runs(runs / "one") == [runs / "one"]
    for other in (runs / "notes", runs / "nothing"):
        with pytest.raises(UserError):
            find_runs(other)


def test_each_kind_is_what_it_says_with_its_size(runs: Path) -> None:
    def there(kind: str) -> list[tuple[str, int]]:
        return [(each.path.relative_to(runs).as_posix(), each.size_bytes) for each in find(find_runs(runs), [kind])]

    assert there(CHECKPOINTS) == [("one/.partial", 100)]
    assert there(CACHES) == [("one/tensorboard", 100), ("search-tune/teachers", 100)]
    assert [name for name, _ in there(WEIGHTS)] == [
        "many/seed-0/teacher",
        "many/seed-1/teacher",
        "one/teacher",
        "one/students",
    ]
    assert there(WHOLE)[2] == ("one", 800)


def test_only_what_was_found_goes(runs: Path) -> None:
    before = _names(runs)
    assert delete(find(find_runs(runs), [CHECKPOINTS, CACHES])) == 300
    gone = {name.split("/", 2)[0] + "/" + name.split("/", 2)[1] for name in before - _names(runs)}
    assert gone == {"one/.partial", "one/tensorboard", "search-tune/teachers"}


@pytest.mark.parametrize("held", ["one/.lock", "one/search/.lock"])
def test_a_run_in_progress_is_left_alone_and_so_are_the_others(runs: Path, held: str) -> None:
    (runs / held).parent.mkdir(exist_ok=True)
    before = _names(runs)
    with FileLock(runs / held), pytest.raises(UserError, match=r"at work in .*one"):
        delete(find(find_runs(runs), [WEIGHTS, WHOLE]))
    assert before - _names(runs) == set()


def test_nothing_behind_a_link_is_deleted(runs: Path, tmp_path: Path) -> None:
    mine = _fill(tmp_path / "mine", "precious", "deep/precious")
    (runs / "one" / "search").symlink_to(mine)
    (runs / "one" / "students" / "linked").symlink_to(mine)
    (runs / "elsewhere").symlink_to(mine)
    assert size_of(runs / "one" / "search") < 100
    delete(find(find_runs(runs), [CACHES, WEIGHTS]))
    assert not (runs / "one" / "search").is_symlink()
    assert not (runs / "one" / "students").exists()
    assert {path.name for path in mine.rglob("*")} == {"precious", "deep"}
    assert (runs / "elsewhere").is_symlink()


def test_the_command_shows_and_deletes_when_told_to(runs: Path, clean: Clean) -> None:
    code, out, _ = clean(runs, "--dry-run", "--weights", "--checkpoints")
    assert code == 0
    assert f"{runs / 'one' / '.partial'}  100\xa0bytes" in out
    assert "would be freed" in out
    assert (runs / "one" / ".partial").exists()
    code, out, _ = clean(runs, "--yes")
    assert (code, (runs / "one" / ".partial").exists()) == (0, False)
    assert "freed 100\xa0bytes" in out
    assert (runs / "one" / "teacher").exists()  # not asked for
    assert "nothing to delete" in clean(runs, "--yes")[1]
    assert clean(runs / "one", "--all", "--yes")[0] == 0
    assert not (runs / "one").exists()
    assert (runs / "notes" / "teacher" / "mine").exists()


def test_what_a_series_said_goes_with_the_last_of_its_runs(runs: Path, clean: Clean) -> None:
    """It stayed alone, the figures of runs that nobody has any more, for the next reader to wonder at."""
    _fill(runs / "many", "seeds.json", "notes.txt")
    assert clean(runs / "many", "--checkpoints", "--weights", "--yes")[0] == 0
    assert clean(runs / "many" / "seed-0", "--all", "--yes")[0] == 0
    assert (runs / "many" / "seeds.json").exists()
    status, out, _ = clean(runs, "--all", "--yes")
    assert status == 0
    assert str(runs / "many" / "seeds.json") in out
    assert {name for name in _names(runs) if name.startswith("many")} == {"many", "many/notes.txt"}


@pytest.mark.parametrize(("said", "stays"), [("n\n", True), ("\n", True), ("y\n", False)])
def test_it_asks_before_it_deletes(
    runs: Path, clean: Clean, monkeypatch: pytest.MonkeyPatch, said: str, stays: bool
) -> None:
    terminal = io.StringIO(said)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    code, out, _ = clean(runs / "one", "--weights")
    assert code == 0
    assert "delete 200\xa0bytes?" in out
    assert (runs / "one" / "teacher").exists() is stays
    assert (runs / "one" / "packages").exists()


def test_with_nobody_to_ask_nothing_is_deleted(runs: Path, clean: Clean) -> None:
    code, _, err = clean(runs / "one", "--weights")
    assert code == 2
    assert "--yes" in err
    assert (runs / "one" / "teacher").exists()


def test_what_is_no_run_is_an_error_with_a_hint(tmp_path: Path, clean: Clean) -> None:
    code, _, err = clean(tmp_path / "nothing")
    assert code == 2
    assert "there is no folder" in err
