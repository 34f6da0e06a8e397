"""Every contender in turn, round after round, from one generator on a core of its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from loadtests.peers.contenders import Running
from loadtests.peers.processor import tree_seconds
from serve.errors import UserError

CONNECTIONS = (1, 16)
_SLICES = 10  # of a round
_FIRST_WARM_UP, _WARM_UP = 100, 10  # requests before a slice that are not counted


@dataclass(frozen=True)
class Sent:
    """One test of one contender."""

    latencies_ms: tuple[float, ...]
    seconds: float
    generator_busy: float  # share of its core
    server_cpu_ms: float  # processor time of the server for each request


Round = Mapping[tuple[str, int], Sent]  # by contender and connections


class Generator:
    """The generator's process. Raises UserError where a test cannot be done, or an answer was wrong."""

    def __init__(self, cores: frozenset[int] | None) -> None:
        with on_cores(cores):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "loadtests.peers.generator"],
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )

    def send(self, name: str, pid: int, test: dict[str, Any]) -> Sent:
        before = tree_seconds(pid)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(test) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise UserError("the generator ended", "its error is above")
        seen = json.loads(line)
        if "error" in seen:
            raise UserError(f"{name} could not be measured: {seen['error']}", "is something else wrong with it?")
        if seen["wrong"]:
            raise UserError(
                f"{name} answered {seen['wrong']} of {test['count']} requests wrongly: {seen['first_problem']}",
                "servers that do not answer alike are not compared",
            )
        spent = 1000 * (tree_seconds(pid) - before) / (seen["warmed_up"] + test["count"])
        return Sent(tuple(seen["latencies_ms"]), seen["seconds"], seen["generator_busy"], spent)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def one_round(generator: Generator, servers: Mapping[str, tuple[Running, Path]], count: int, number: int) -> Round:
    """`count` requests to each of `servers` (what runs, and its requests, by name), at each number of connections.

    In slices, each time in a new order: a machine that grows slower meanwhile does so for all of them.
    """
    seen: dict[tuple[str, int], list[Sent]] = {}
    draw = random.Random(number)
    for connections in CONNECTIONS:
        for part in range(_SLICES):
            for name in draw.sample(list(servers), len(servers)):
                running, requests = servers[name]
                test = {
                    "port": running.port,
                    "requests": str(requests),
                    "connections": connections,
                    "count": -(-count // _SLICES),
                    "warm_up": _WARM_UP if part else _FIRST_WARM_UP,
                    "seed": _SLICES * number + part,
                }
                seen.setdefault((name, connections), []).append(generator.send(name, running.pid, test))
    return {key: _together(parts) for key, parts in seen.items()}


def _together(parts: Sequence[Sent]) -> Sent:
    return Sent(
        tuple(latency for part in parts for latency in part.latencies_ms),
        sum(part.seconds for part in parts),
        mean(part.generator_busy for part in parts),
        mean(part.server_cpu_ms for part in parts),
    )


def split_cores(server: str | None, generator: str | None) -> tuple[frozenset[int] | None, frozenset[int] | None]:
    """The cores of the servers and of the generator: as given ("0,1"), else the generator has the last to itself."""
    if server and generator:
        return _cores(server), _cores(generator)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (None, None) if len(cores) < 2 else (frozenset(cores[:-1]), frozenset(cores[-1:]))


def _cores(text: str) -> frozenset[int]:
    try:
        return frozenset(int(core) for core in text.split(","))
    except ValueError:
        raise UserError(f"{text!r} names no cores", "expected for example 0,1") from None


@contextmanager
def on_cores(cores: frozenset[int] | None) -> Iterator[None]:
    """What is started inside runs on these cores."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
