from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from compress.rundir import RunDir, open_run, read_about, tree_digest, write_text
from serve.errors import UserError


class Answer(BaseModel):
    value: int


class Told:
    """Runs stages in a folder and remembers what was said of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[tuple[str, str]] = []

    def __call__(self, work: Callable[[RunDir], Any]) -> list[tuple[str, str]]:
        self.said = []
        with open_run(self.folder, {"name": "test"}, lambda name, state, _: self.said.append((name, state))) as run:
            work(run)
        return self.said


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path / "run")


def write(text: str) -> Callable[[Path], Answer]:
    def work(folder: Path) -> Answer:
        folder.mkdir(exist_ok=True)
        (folder / "out.txt").write_text(text)
        return Answer(value=len(text))

    return work


def stage(text: str = "hello", **inputs: Any) -> Callable[[RunDir], Answer]:
    return lambda run: run.stage("part/one", inputs, Answer, write(text), output="part/one")


DONE = [("part/one", "started"), ("part/one", "done")]
UNCHANGED = [("part/one", "unchanged")]


def test_a_stage_is_done_once_and_its_result_remembered(told: Told) -> None:
    assert told(stage()) == DONE
    assert told(stage("never written")) == UNCHANGED
    assert (told.folder / "part/one/out.txt").read_text() == "hello"
    results: list[Answer] = []
    told(lambda run: results.append(stage("never written")(run)))
    assert results == [Answer(value=5)]


@pytest.mark.parametrize("inputs", [{"x": 2}, {"y": 1}, {}, {"x": Answer(value=1)}])
def test_other_inputs_do_it_again_in_the_stead_of_what_was_there(told: Told, inputs: dict[str, Any]) -> None:
    told(stage(x=1))
    (told.folder / "part/one/extra").touch()
    assert told(stage("bye", **inputs)) == DONE
    assert [file.name for file in (told.folder / "part/one").iterdir()] == ["out.txt"]
    assert (told.folder / "part/one/out.txt").read_text() == "bye"


def change(file: Path) -> None:
    file.write_text("hullo")


def rename(file: Path) -> None:
    file.rename(file.with_name("other.txt"))


def add(file: Path) -> None:
    file.with_name("more").touch()


@pytest.mark.parametrize("damage", [change, Path.unlink, rename, add])
def test_an_output_that_changed_on_disk_is_made_again(told: Told, damage: Callable[[Path], None]) -> None:
    told(stage())
    damage(told.folder / "part/one/out.txt")
    assert told(stage()) == DONE
    assert (told.folder / "part/one/out.txt").read_text() == "hello"
    assert told(stage()) == UNCHANGED


@pytest.mark.parametrize("name", ["card.json", "serving.json"])
def test_what_may_change_in_a_package_is_not_an_output(told: Told, name: str) -> None:
    told(stage())
    (told.folder / "part/one" / name).write_text("{}")
    assert told(stage()) == UNCHANGED


def test_a_result_of_another_version_is_made_again(told: Told) -> None:
    told(stage())
    record = json.loads((told.folder / "run.json").read_text())
    record["stages"]["part/one"]["result"] = {"worth": 5}
    (told.folder / "run.json").write_text(json.dumps(record))
    assert told(stage()) == DONE


def test_work_that_was_cut_short_finds_what_it_left_and_is_not_taken_for_done(told: Told) -> None:
    def cut(folder: Path) -> Answer:
        write("half")(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        told(lambda run: run.stage("part/one", {}, Answer, cut, output="part/one"))
    assert not (told.folder / "part").exists()
    found = []

    def go_on(folder: Path) -> Answer:
        found.append((folder / "out.txt").read_text())
        return write("whole")(folder)

    assert told(lambda run: run.stage("part/one", {}, Answer, go_on, output="part/one")) == DONE
    assert found == ["half"]
    assert not (told.folder / ".partial").exists()


def test_what_was_left_by_work_on_other_inputs_is_thrown_away(told: Told) -> None:
    def cut(folder: Path) -> Answer:
        write("half")(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        told(lambda run: run.stage("part/one", {"x": 1}, Answer, cut, output="part/one"))
    seen = []

    def look(folder: Path) -> Answer:
        seen.extend(folder.parent.iterdir())
        return write("new")(folder)

    told(lambda run: run.stage("part/one", {"x": 2}, Answer, look, output="part/one"))
    assert seen == []


def test_stages_that_are_gone_are_forgotten_with_their_outputs(told: Told) -> None:
    def two(run: RunDir) -> None:
        stage()(run)
        run.stage("part/two", {}, Answer, write("two"), output="part/two")
        run.stage("bare", {}, Answer, lambda _: Answer(value=1))

    told(two)
    told(lambda run: (stage()(run), run.forget_all_but(["part/one"])))
    assert [path.name for path in (told.folder / "part").iterdir()] == ["one"]
    assert list(read_about(told.folder)["stages"]) == ["part/one"]
    assert told(stage()) == UNCHANGED


def test_a_second_run_in_the_folder_is_refused_and_the_lock_goes_with_the_first(told: Told) -> None:
    with open_run(told.folder, {}), pytest.raises(UserError, match="another limbeck is at work"):
        told(stage())
    assert told(stage()) == DONE


def test_a_lock_is_released_by_a_run_that_failed(told: Told) -> None:
    with pytest.raises(ZeroDivisionError):
        told(lambda run: 1 / 0)
    assert told(stage()) == DONE


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "new \ud800")
    assert file.read_text() == "old"
    write_text(file, "new")
    assert file.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_tree_is_named_by_names_and_bytes(tmp_path: Path) -> None:
    assert tree_digest(tmp_path / "nothing") is None
    digests = set()
    for name, text in (("a", "x"), ("b", "x"), ("a", "y"), ("sub/a", "x")):
        folder = tmp_path / f"tree{len(digests)}"
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
        digests.add(tree_digest(folder))
    assert len(digests) == 4
