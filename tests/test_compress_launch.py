"""Several processes of one run: what ended them is told, by the exit code too, and the same command goes on."""

from __future__ import annotations

import os
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tomli_w
from forks import FORKS, be_one_of_two, free_port, limbeck, running
from tiny_run import RECIPE

from compress.cli.running import tell_launcher
from compress.launch import COMMAND, check_count, launch, loses_exit_codes
from serve.errors import UserError
from train.trainer import ClassifierTrainer

UPDATES = 3  # of an epoch


def by_rank(zero: str, one: str = "") -> list[str]:
    """A command that does one thing in the first process and another in the second."""
    return [
        sys.executable,
        "-c",
        f"import os, signal, sys, time\nif os.environ['RANK'] == '0': {zero}\nelse: {one or 'pass'}",
    ]


@pytest.mark.parametrize(
    ("zero", "one", "code"), [("sys.exit(3)", "", 3), ("pass", "", 0), ("time.sleep(60)", "sys.exit(1)", 1)]
)
def test_the_exit_code_of_a_process_is_that_of_the_run(zero: str, one: str, code: int) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert launch(2, by_rank(zero, one)) == code
    assert signal.getsignal(signal.SIGTERM) is before
    assert COMMAND not in os.environ


def test_a_process_that_was_killed_is_named() -> None:
    with pytest.raises(UserError, match=r"process 1 \(of 2, from 0\) was ended from outside, by SIGKILL") as lost:
        launch(2, by_rank("time.sleep(60)", "os.kill(os.getpid(), signal.SIGKILL)"))
    assert "the same command goes on" in lost.value.hint.lower()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = tomllib.loads(RECIPE)
    content["data"]["train"] = 64 * UPDATES
    content["teacher"] |= {"model": "builtin:mlp-8", "options": {}}
    path = tmp_path_factory.mktemp("lost") / "recipe.toml"
    path.write_text(tomli_w.dumps(content))
    return path


def one_of_two(rank: int, port: str, lost: int, update: int, said: Path, arguments: list[str]) -> None:
    """`limbeck run` in a process that was forked; `lost` is killed before this update."""
    be_one_of_two(rank, port)
    step = ClassifierTrainer.training_step

    def until_killed(self: ClassifierTrainer, *given: Any, **named: Any) -> Any:
        if rank == lost and self.state.global_step == update:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *given, **named)

    with mock.patch.object(ClassifierTrainer, "training_step", until_killed):
        limbeck(arguments, said)


def lose(rank: int, update: int, recipe: Path) -> list[str]:
    """Kill one of two processes of a run; what each of them had said when both had ended."""
    port, said = free_port(), [recipe.parent / f"lost-{rank}-{other}" for other in (0, 1)]
    arguments = ["run", str(recipe), "--out", str(recipe.parent / "run")]
    children = [
        FORKS.Process(target=one_of_two, args=(each, port, rank, update, said[each], arguments)) for each in (0, 1)
    ]
    with running(children):
        for child in children:
            child.join()
        assert children[rank].exitcode == -signal.SIGKILL
        assert children[1 - rank].exitcode == 2
    return [file.read_text() for file in said]


def test_whoever_is_left_tells_of_a_lost_process_and_the_same_command_goes_on(recipe: Path) -> None:
    """The second is killed in the second epoch; then, of the same command, the first in the third."""
    first, _ = lose(1, UPDATES + 1, recipe)
    assert "epoch 1/3" in first
    assert "error: another process of the run ended while this one waited for it" in first
    assert "hint: what it said stands above or in its own log" in first
    assert "The same command goes on from the last whole epoch" in first
    first, second = lose(0, 2 * UPDATES + 1, recipe)
    assert "epoch 2/3" in first
    assert "epoch 1/3" not in first
    assert "error: the first process of the run, or another, is gone without a word" in second
    assert "Traceback" not in first + second


def test_what_torchrun_would_call_a_crash_ends_with_0_there_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not loses_exit_codes()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    assert loses_exit_codes()
    monkeypatch.setenv(COMMAND, "limbeck run recipe.toml --processes 2")
    assert not loses_exit_codes()


def test_torchruns_summary_says_what_was_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    error = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(error))
    tell_launcher(UserError("there is no such file", "look for it"))
    summary = str(ChildFailedError("limbeck", {0: ProcessFailure(0, 1234, 2, str(error))}))
    assert "there is no such file; hint: look for it" in summary


def test_more_processes_than_can_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UserError, match="each needs a GPU of its own, and this machine has 1"):
        check_count(2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="has started some already"):
        check_count(2)
