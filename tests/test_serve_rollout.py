"""Changes that all workers make or none. The workers are followers in threads of this process, on one shared folder."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_package

from serve.catalog import catalog
from serve.engine import Engine
from serve.errors import UserError
from serve.follow import Follower
from serve.limits import Limits
from serve.models import open_engine
from serve.rollout import Patience, Rollout, begin
from serve.shared_state import SharedState, State
from serve.watch import Watcher

Start = Callable[..., Follower]


@pytest.fixture(autouse=True)
def _no_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one garbage collection takes in a server takes long in a process with all that the tests have imported."""
    monkeypatch.setattr("serve.registry.release_memory", lambda: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_package(tmp_path / "models" / "main", temperature=1.0)
    tiny_package(tmp_path / "models" / "spare", temperature=2.0)
    return tmp_path / "models"


@pytest.fixture
def shared(folder: Path, tmp_path: Path) -> SharedState:
    shared = SharedState.create(tmp_path / "state")
    begin(shared, catalog(folder / "main"))
    return shared


@pytest.fixture
def rollout(shared: SharedState, folder: Path) -> Rollout:
    return Rollout(shared, folder, Patience(turn_s=0.2, load_s=5, change_s=0.5))


@pytest.fixture
def worker(shared: SharedState) -> Iterator[Start]:
    """Starts workers, which end with the test."""
    with contextlib.ExitStack() as stack:

        def start(opener: Callable[[Path, Path], Engine] | None = None, follows: bool = True) -> Follower:
            follower = Follower(shared, opener or (lambda copy, origin: open_engine(copy, Limits(), origin)))
            stack.callback(follower.close)
            if follows:
                follower.start()
            return follower

        yield start


def _until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _served(follower: Follower) -> dict[str, str]:
    return {name: engine.model_id for name, engine in follower.registry.current[0].items()}


def test_all_workers_serve_the_new_one_when_the_answer_comes(rollout: Rollout, worker: Start, folder: Path) -> None:
    workers = [worker(), worker(), worker()]
    before = _served(workers[0])["main"]
    new = tiny_package(folder / "main", temperature=3.0).manifest.id
    outcome = rollout.load("main")
    assert (outcome.following, outcome.workers) == (3, 3)
    assert outcome.selection.models["main"].id == new != before
    assert [_served(each) for each in workers] == [{"main": new}] * 3


def test_if_one_worker_cannot_load_it_none_serves_it(rollout: Rollout, worker: Start, shared: SharedState) -> None:
    opened: list[Path] = []

    def short_of_memory(copy: Path, origin: Path) -> Engine:
        opened.append(copy)
        if len(opened) > 1:
            raise UserError("there is no memory left")
        return open_engine(copy, Limits(), origin)

    workers = [worker(), worker(short_of_memory)]
    before = _served(workers[0])
    with pytest.raises(UserError, match="a worker cannot load it: there is no memory left") as caught:
        rollout.load("extra", "spare")
    assert caught.value.hint == "what was served before is served on"
    assert [_served(each) for each in workers] == [before, before]
    assert [path.name for path in (shared.folder / "copies").iterdir()] == ["1-main"]


def test_a_worker_that_dies_is_not_waited_for(rollout: Rollout, worker: Start) -> None:
    living, dead = worker(), worker(follows=False)
    dead._registration.close()  # as the kernel does when a process ends
    assert (rollout.load("extra", "spare").following, "extra" in _served(living)) == (1, True)


def test_a_worker_that_hangs_keeps_the_old_everywhere(shared: SharedState, folder: Path, worker: Start) -> None:
    living = worker()
    worker(follows=False)
    hurried = Rollout(shared, folder, Patience(load_s=0.3))
    with pytest.raises(UserError, match=r"not all workers have loaded it within 0.3 s"):
        hurried.load("extra", "spare")
    assert list(_served(living)) == ["main"]


def test_a_worker_that_starts_later_serves_the_bytes_that_the_others_serve(
    rollout: Rollout, worker: Start, folder: Path
) -> None:
    first = worker()
    rollout.load("extra", "spare")
    tiny_package(folder / "spare", temperature=9.0)
    (folder / "main" / "model.onnx").write_bytes(b"broken meanwhile")
    assert _served(worker()) == _served(first)


def test_a_worker_that_missed_versions_gets_to_the_last(rollout: Rollout, worker: Start, shared: SharedState) -> None:
    worker()
    rollout.load("extra", "spare")
    late = worker(follows=False)
    state = shared.read()
    only_main = state.serving.model_copy(update={"models": {"main": state.serving.models["main"]}})
    shared.write(State(version=state.version + 1, serving=only_main))
    shared.write(State(version=state.version + 2, serving=only_main, candidate=state.serving))
    late.look()
    assert list(_served(late)) == ["main"]
    with late.registry.borrow("main") as engine:
        assert engine.describe()["task"] == "image"
    shared.write(State(version=state.version + 3, serving=state.serving))
    late.look()
    assert sorted(_served(late)) == ["extra", "main"]


def test_a_change_that_nobody_finished_is_forgotten_by_the_next(
    rollout: Rollout, shared: SharedState, worker: Start, folder: Path
) -> None:
    follower = worker()
    state = shared.read()
    half = shared.take_in("half", folder / "spare", folder / "spare", state.version + 1)
    models = {**state.serving.models, "half": half}
    candidate = state.serving.model_copy(update={"models": models})
    shared.write(State(version=state.version + 1, serving=state.serving, candidate=candidate))
    _until(lambda: half.folder in follower._held)
    rollout.load("extra", "spare")
    assert sorted(_served(follower)) == ["extra", "main"]
    assert sorted(follower._held) == sorted(path.name for path in (shared.folder / "copies").iterdir())


def test_only_what_belongs_to_a_package_is_copied(shared: SharedState, folder: Path) -> None:
    (folder / "spare" / "notes.txt").write_text("not part of it")
    (folder / "spare" / "more").mkdir()
    copy = shared.take_in("copy", folder / "spare", folder / "spare", 7)
    names = sorted(path.name for path in shared.path(copy.folder).iterdir())
    assert names == ["card.json", "manifest.json", "model.onnx", "serving.json"]
    (folder / "spare" / "model.onnx").unlink()
    with pytest.raises(UserError, match=f"cannot read {folder}/spare/model.onnx"):
        shared.take_in("again", folder / "spare", folder / "spare", 8)
    assert not shared.path("8-again").exists()


def test_one_change_at_a_time(rollout: Rollout, shared: SharedState, worker: Start) -> None:
    worker()
    with shared.changing(1), pytest.raises(UserError, match="another change of the models is under way"):
        rollout.unload("main")
    assert rollout.load("extra", "spare").workers == 1


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "x" * 65, "a b", "é"])
def test_names_that_could_be_paths_are_refused(rollout: Rollout, name: str) -> None:
    with pytest.raises(UserError, match="is no name for a model"):
        rollout.load(name, "spare")


def test_only_so_many_models_are_served(rollout: Rollout, worker: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    worker()
    monkeypatch.setattr("serve.rollout.MAX_MODELS", 2)
    rollout.load("second", "spare")
    with pytest.raises(UserError, match="2 models are served, which is as many as there may be"):
        rollout.load("third", "spare")
    rollout.load("second")


def test_without_a_folder_of_models_only_what_is_there_is_loaded_again(shared: SharedState, worker: Start) -> None:
    worker()
    bare = Rollout(shared)
    assert bare.load("main").following == 1
    with pytest.raises(UserError, match="no folder of models is configured"):
        bare.load("extra", "spare")


@pytest.fixture
def watcher(rollout: Rollout, folder: Path, shared: SharedState) -> Watcher:
    return Watcher(folder, rollout, shared.folder / "watch.lock", look_s=0.05)


def test_a_watched_folder_is_followed(watcher: Watcher, worker: Start, folder: Path, tmp_path: Path) -> None:
    follower = worker()
    before = _served(follower)["main"]
    watcher.adopt()
    watcher.look()
    assert list(_served(follower)) == ["main"]  # it may still be being written
    watcher.look()
    assert sorted(_served(follower)) == ["main", "spare"]
    assert _served(follower)["main"] == before
    assert len(list((follower._shared.folder / "copies").glob("*-main"))) == 1  # and was not loaded again
    (folder / "main").rename(tmp_path / "gone")
    (folder / "spare").rename(tmp_path / "spare")
    watcher.look()
    tiny_package(folder / "main", temperature=5.0)
    for _ in range(3):
        watcher.look()
    assert list(_served(follower)) == ["main"]
    assert _served(follower)["main"] != before


def test_a_broken_package_in_a_watched_folder_is_reported_once_and_loaded_when_mended(
    watcher: Watcher, worker: Start, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    follower = worker()
    watcher.adopt()
    content = (folder / "spare" / "model.onnx").read_bytes()
    (folder / "spare" / "model.onnx").write_bytes(content[:100])
    for _ in range(5):
        watcher.look()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "model.onnx is corrupt" in caplog.text
    (folder / "spare" / "model.onnx").write_bytes(content)
    for _ in range(2):
        watcher.look()
    assert sorted(_served(follower)) == ["main", "spare"]


def test_the_default_stays_when_it_is_gone_from_the_folder(
    watcher: Watcher, worker: Start, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    follower = worker()
    watcher.adopt()
    watcher.look()
    (folder / "main").rename(tmp_path / "gone")
    for _ in range(5):
        watcher.look()
    assert "main" in _served(follower)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "main is gone from the watched folder, and served on: 'main' is the default"
    ]


def test_one_of_several_watchers_looks_and_another_when_it_ends(
    watcher: Watcher, rollout: Rollout, shared: SharedState, folder: Path, worker: Start
) -> None:
    follower = worker()
    second = Watcher(folder, rollout, shared.folder / "watch.lock", look_s=0.05)
    looks: list[Any] = []
    both = threading.Event()

    def noting(watcher: Watcher) -> None:
        look = watcher.look

        def noted() -> None:
            looks.append(watcher)
            look()
            if looks[-1] is second:
                both.set()

        watcher.look = noted  # type: ignore[method-assign]

    noting(watcher)
    noting(second)
    watcher.start()
    _until(lambda: looks)
    second.start()
    _until(lambda: "spare" in _served(follower))
    assert set(map(id, looks)) == {id(watcher)}
    watcher.close()
    assert both.wait(5)
    second.close()
