"""Locust as a process of its own, on a core of its own where there is one to spare."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.loadtest.search import Kind, Probe
from compress.loadtest.split import between, snapshot
from serve.errors import UserError

_LOCUSTFILE = Path(__file__).resolve().parents[2] / "loadtests" / "locustfile.py"
_PERCENTILE = re.compile(r"\bp(\d{1,2}(?:\.\d+)?)")
_SPARE = 5  # standard deviations: a Poisson process may bring fewer requests than it should
_SEARCH_REQUESTS, _LEAST_SECONDS, _MOST_SECONDS = 2_000, 5.0, 900.0
_SEARCH_SECONDS = 20.0  # at 10 requests/s, 2,000 would take minutes, and the windows decide anyway
_OUTPUT_LINES = 8


@dataclass
class Generator:
    """Sends to `url` what `run`'s payloads hold; `folder` takes what locust writes."""

    url: str
    run: Path
    objective: str
    folder: Path
    body: str = "json"
    warm_up: float = 2.0
    seconds: float | None = None  # of a window; None: as many as a 99th percentile needs
    most_seconds: float = _SEARCH_SECONDS  # of a test that only searches
    cores: frozenset[int] | None = None  # to run on; None: wherever
    seed: int = 0
    _sent: int = 0

    def try_rate(self, rate: float, kind: Kind) -> Probe:
        """Send at `rate` for a while. Each time the arrivals are others, and the same again in the next search."""
        needed = evidence(self.objective)
        wanted = needed + _SPARE * needed**0.5 if kind == "window" else _SEARCH_REQUESTS
        most = _MOST_SECONDS if kind == "window" else self.most_seconds
        seconds = min(max(wanted / rate, _LEAST_SECONDS), most)
        if kind == "window" and self.seconds is not None:
            seconds = self.seconds
        before = snapshot(self.url)
        content = self.send(rate, self.warm_up + seconds)
        if kind == "search" and content["cause"] == "late":  # an idle machine may wake it late for once
            content = self.send(rate, self.warm_up + seconds)
        split = between(before, snapshot(self.url))
        return Probe(rate, content["cause"], kind, content["summary"]["p99_ms"], tuple(content["reasons"]), split)

    def send(self, rate: float, seconds: float) -> dict[str, Any]:
        """What locust wrote of a test. Raises UserError where it did not get that far."""
        self._sent += 1
        out = self.folder / f"{self._sent}.json"
        options = {
            "--host": self.url,
            "--rate": f"{rate:.6g}",
            "--run-time": f"{math.ceil(seconds)}s",
            "--warm-up": f"{self.warm_up:g}",
            "--slo": self.objective,
            "--body": self.body,
            "--seed": f"{self.seed + self._sent}",
            "--out": str(out),
        }
        command = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--only-summary"]
        command += [part for option in options.items() for part in option]
        with on_cores(self.cores):  # a child runs where its parent does
            process = subprocess.Popen(
                command,
                env={**os.environ, "LIMBECK_RUN": str(self.run)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        try:
            output, _ = process.communicate()
        finally:
            process.kill()
        if not out.is_file():
            tail = "\n".join(output.splitlines()[-_OUTPUT_LINES:])
            raise UserError("the load generator ended before it had measured anything", f"its last words:\n{tail}")
        content: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return content


def evidence(objective: str) -> float:
    """Requests that an objective needs to be shown: a hundred beyond its highest percentile, 10,000 for a 99th."""
    highest = max((float(percent) for percent in _PERCENTILE.findall(objective)), default=0.0)
    return max(_SEARCH_REQUESTS, 100 / (1 - highest / 100))


def split_cores() -> tuple[frozenset[int] | None, frozenset[int] | None]:
    """Cores for the server, and the last one for the generator; None, None where they have to share."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    cores = sorted(os.sched_getaffinity(0))
    return (None, None) if len(cores) < 2 else (frozenset(cores[:-1]), frozenset(cores[-1:]))


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
