"""`limbeck kernels gpu`: everything that needs a GPU, one process after the other, each bounded in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = "{seconds}"
_STARTUP_SECONDS = 15  # of a step's time, for imports, what is begun when its time is over, and writing
_GRACE_SECONDS = 10  # beyond a step's own limit, before it is ended
_TAIL_CHARACTERS = 2000
_OUTCOMES = {0: "done", 3: "done, but not all targets are met"}  # exit codes of limbeck's commands


@dataclass(frozen=True)
class Step:
    """A command and how long it may take: its own seconds, and those that the steps before have left over.

    SECONDS in the command stands for how long it is to work, a little less than that.
    """

    name: str
    command: tuple[str, ...]
    seconds: int
    needs: str = ""  # a file of the checkout, without which the step is left out


@dataclass(frozen=True)
class Done:
    """What came of a step."""

    name: str
    outcome: str  # "done", "failed with 1", "ended after 120 s", "left out: no tests/..."
    seconds: float
    tail: str

    @property
    def well(self) -> bool:
        return self.outcome == "done"


def steps(out: Path) -> list[Step]:
    """In the order in which each needs the one before: right, tuned, measured, end to end. Below 8 minutes together."""
    python, limbeck = (sys.executable,), (sys.executable, "-m", "compress", "kernels")
    tests = "tests/test_kernels_gpu.py"
    return [
        Step("tests", (*python, "-m", "pytest", "-m", "gpu", "-vv", "-p", "no:cacheprovider", tests), 170, tests),
        Step("tune", (*limbeck, "tune", "--seconds", SECONDS, "--copy-to", str(out / "tuned")), 80),
        Step("bench", (*limbeck, "bench", "--seconds", SECONDS, "--out", str(out / "bench.json")), 135),
        Step(
            "end to end",
            (*python, "-m", "benchmarks.kernels_step", "--seconds", SECONDS, "--out", str(out / "step.json")),
            50,
            "benchmarks/kernels_step.py",
        ),
    ]


def run_steps(
    wanted: Sequence[Step],
    out: Path,
    tell: Callable[[str], None],
    run: Callable[..., Any] = subprocess.run,
    root: Path = ROOT,
    clock: Callable[[], float] = time.monotonic,
) -> list[Done]:
    """Run them all, also after one has failed; gpu.json in `out` has what is known after each, logs stand beside it."""
    out.mkdir(parents=True, exist_ok=True)
    done: list[Done] = []
    deadline = clock() + sum(step.seconds for step in wanted)
    for place, step in enumerate(wanted):
        reserved = sum(later.seconds for later in wanted[place + 1 :])
        step = replace(step, seconds=max(step.seconds, int(deadline - clock()) - reserved))
        tell(f"{step.name} ... (at most {step.seconds} s)")
        done.append(_run(step, out, run, root))
        tell(f"{step.name}: {done[-1].outcome}, {done[-1].seconds:.0f} s")
        (out / "gpu.json").write_text(
            json.dumps({"schema": 1, "steps": [asdict(each) for each in done]}, indent=1) + "\n"
        )
    return done


def _run(step: Step, out: Path, run: Callable[..., Any], root: Path) -> Done:
    if step.needs and not (root / step.needs).exists():
        return Done(step.name, f"left out: {step.needs} is not here (a checkout has it)", 0.0, "")
    command = [part.replace(SECONDS, str(step.seconds - _STARTUP_SECONDS)) for part in step.command]
    log = out / f"{step.name.replace(' ', '-')}.log"
    begun = time.monotonic()
    environment = {**os.environ, "TRITON_INTERPRET": "0", "LIMBECK_GPU": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("w") as file:
        try:
            ended = run(
                command, cwd=root, env=environment, stdout=file, stderr=subprocess.STDOUT,
                timeout=step.seconds + _GRACE_SECONDS, check=False,
            )  # fmt: skip
            outcome = _OUTCOMES.get(ended.returncode, f"failed with {ended.returncode}")
        except subprocess.TimeoutExpired:
            outcome = f"ended after {step.seconds + _GRACE_SECONDS} s"
    return Done(step.name, outcome, time.monotonic() - begun, log.read_text(errors="replace")[-_TAIL_CHARACTERS:])
