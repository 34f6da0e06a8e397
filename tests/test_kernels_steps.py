from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compress import cli
from kernels.bench.steps import SECONDS, Step, run_steps, steps


def test_all_steps_together_stay_below_eight_minutes(tmp_path: Path) -> None:
    wanted = steps(tmp_path)
    assert [step.name for step in wanted] == ["tests", "tune", "bench", "end to end"]
    assert sum(step.seconds + 10 for step in wanted) < 480


def test_each_step_is_run_bounded_and_written_down_also_after_one_failed(tmp_path: Path) -> None:
    python = sys.executable
    wanted = [
        Step(
            "one",
            (python, "-c", "import os; print('seen', os.environ['TRITON_INTERPRET'], os.environ['LIMBECK_GPU'])"),
            60,
        ),
        Step("two", (python, "-c", "import sys; print('bad'); sys.exit(1)"), 60),
        Step("three", (python, "-c", "import sys; sys.exit(3)"), 60),
        Step("four", (python, "-c", ""), 60, needs="nowhere.py"),
    ]
    told: list[str] = []
    done = run_steps(wanted, tmp_path / "out", told.append)
    assert [each.outcome for each in done] == [
        "done",
        "failed with 1",
        "done, but not all targets are met",
        "left out: nowhere.py is not here (a checkout has it)",
    ]
    assert [each.well for each in done] == [True, False, False, False]
    assert done[0].tail == "seen 0 1\n"
    content = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert [step["name"] for step in content["steps"]] == ["one", "two", "three", "four"]
    assert (tmp_path / "out" / "two.log").read_text() == "bad\n"
    assert told[0] == "one ... (at most 60 s)"


def test_a_step_that_takes_too_long_is_ended_and_what_it_said_is_kept(tmp_path: Path) -> None:
    slow = "import time; print('begun', flush=True); time.sleep(60)"
    (done,) = run_steps([Step("slow", (sys.executable, "-c", slow), -8)], tmp_path, lambda _: None)
    assert (done.outcome, done.tail, done.well) == ("ended after 2 s", "begun\n", False)


def test_a_step_gets_what_the_steps_before_have_left_over(tmp_path: Path) -> None:
    now = [0.0]
    took = iter([10.0, 200.0, 30.0])
    given: list[tuple[str, float]] = []

    def run(command: list[str], timeout: float, **_: Any) -> subprocess.CompletedProcess[str]:
        given.append((command[0], timeout))
        now[0] += next(took)
        return subprocess.CompletedProcess(command, 0)

    wanted = [Step("a", ("plain",), 100), Step("b", (SECONDS,), 100), Step("c", (SECONDS,), 50)]
    run_steps(wanted, tmp_path, lambda _: None, run, clock=lambda: now[0])
    # b has its own 100 s and 90 s of a's; it took 200 s, and c has its 50 s all the same
    assert given == [("plain", 110), ("175", 200), ("35", 60)]


@pytest.mark.parametrize(("codes", "ended_with"), [((0, 0), 0), ((0, 3), 3), ((1, 0), 3)])
def test_the_command_prints_every_step_and_fails_with_any(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    codes: tuple[int, int],
    ended_with: int,
) -> None:
    planted = [Step(f"step{code}", (sys.executable, "-c", f"import sys; sys.exit({code})"), 60) for code in codes]
    monkeypatch.setattr("compress.cli.kernels_gpu._gpu", lambda *_, **__: None)
    monkeypatch.setattr("kernels.bench.steps.steps", lambda _: planted)
    monkeypatch.setattr(sys, "argv", ["limbeck", "kernels", "gpu", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out] == ["step", *(step.name for step in planted), str(tmp_path)]
    assert int(ended.value.code or 0) == ended_with
    assert len(json.loads((tmp_path / "gpu.json").read_text())["steps"]) == 2
