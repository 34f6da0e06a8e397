"""Our server beside bare Starlette, BentoML as documented and LitServe: the same package, load and generator.

    python -m loadtests.peers.bench runs/sst2 runs/cifar10 [--rounds 5] [--requests 1000] [--out FILE]

Each target is a run (its selection) or a package in a run's folder. All servers are started anew in each round, as one
process can be luckier with its memory than the next, and asked in turn, at 1 and at 16 connections, one worker and one
thread each, from a generator on a core of its own, which checks every answer. A text is sent in JSON; an image as a
224x224 JPEG, to BentoML and LitServe in a multipart form as their documentation has it. LitServe gets a virtual
environment of its own (`--litserve`: a folder for it, made where it is not there yet;
"none" leaves it out).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loadtests.peers.answer import Model
from loadtests.peers.bodies import write_requests
from loadtests.peers.contenders import contenders, serving
from loadtests.peers.litserve_environment import environment
from loadtests.peers.rounds import Generator, on_cores, one_round, split_cores
from loadtests.peers.table import as_json, lines
from serve.errors import UserError

_VERSIONS = ("bentoml", "starlette", "uvicorn", "uvloop", "httptools", "onnxruntime-gpu", "onnxruntime")


def compare(wanted: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All targets, one after the other, told on stderr; as plain JSON. Raises UserError."""
    python, left_out = _litserve(wanted.litserve, folder)
    for_servers, for_generator = split_cores(wanted.server_cores, wanted.generator_cores)
    if for_generator is None:
        _say("one core for all: the generator takes a part of what the servers could use")
    results = []
    with ExitStack() as stack:
        generator = Generator(for_generator)
        stack.callback(generator.close)
        for number, target in enumerate(wanted.targets):
            results.append(_compare_one(wanted, target, folder / str(number), python, for_servers, generator))
    return {
        "targets": results,
        "left_out": left_out,
        "generator_on_its_own_core": for_generator is not None,
        "scheduling": _scheduling(),
        "hardware": {"cpu": _cpu(), "cores": os.cpu_count(), "load_average": [round(x, 1) for x in os.getloadavg()]},
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _compare_one(
    wanted: argparse.Namespace,
    target: Path,
    folder: Path,
    python: Path | None,
    cores: frozenset[int] | None,
    generator: Generator,
) -> dict[str, Any]:
    folder.mkdir()
    model = Model(target)
    package = model.predictor.package
    requests = write_requests(model, folder)
    _say(f"{target}: {package.name}, {package.manifest.precision}")
    rounds = []
    for number in range(wanted.rounds):
        with ExitStack() as stack, tempfile.TemporaryDirectory(dir=folder) as place:
            with on_cores(cores):
                servers = {
                    each.name: (stack.enter_context(serving(each, package.path, Path(place))), requests[each.form])
                    for each in contenders(model, python)
                }
            rounds.append(one_round(generator, servers, wanted.requests, number))
        _say(f"  round {number + 1} of {wanted.rounds}")
    for line in lines(f"{package.name}, one {model.task}", rounds):
        print(line)
    about = {"name": package.name, "id": package.manifest.id, "task": model.task}
    return {**about, "precision": package.manifest.precision, **as_json(rounds)}


def _litserve(wanted: str, folder: Path) -> tuple[Path | None, str | None]:
    """The Python of its environment; or None, and why it is left out."""
    if wanted == "none":
        return None, "LitServe is left out, as was asked"
    try:
        return environment(Path(wanted) if wanted else folder / "litserve"), None
    except UserError as error:
        _say(f"{error.message}; {error.hint}")
        return None, error.message


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            continue
    return found


def _cpu() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _scheduling() -> str:
    """Under which policy all of it ran: on a busy machine, `chrt --rr 1` gives servers and generator their cores."""
    names = {os.SCHED_OTHER: "normal", os.SCHED_RR: "real-time"} if hasattr(os, "SCHED_RR") else {}
    return names.get(os.sched_getscheduler(0), "other") if names else "normal"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for each target, and keep what was measured in `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", type=Path, nargs="+", help="runs, or packages in a run's folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1000, help="to each contender in each round")
    parser.add_argument("--litserve", default="", help="a folder for its environment; none: leave it out")
    parser.add_argument("--server-cores", help="for example 0; with --generator-cores [default: all but the last]")
    parser.add_argument("--generator-cores", help="for example 1 [default: the last]")
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="limbeck-peers-") as folder:
            content = compare(wanted, Path(folder))
    except UserError as error:
        _say(f"error: {error.message}\nhint: {error.hint}")
        return 2
    if wanted.out is not None:
        wanted.out.parent.mkdir(parents=True, exist_ok=True)
        wanted.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
