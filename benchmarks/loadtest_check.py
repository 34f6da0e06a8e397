"""The rate that `limbeck loadtest` finds beside that of a generator which shares nothing with it, on the same server.

    python -m benchmarks.loadtest_check runs/digits [--slo-ms 20] [--repeats 3] [--seconds 10] [--out FILE]

Both search as `limbeck loadtest` does (doubled, bisected to 5 %), in turn, against one server that stays up, for the
highest rate at which a 99th percentile stays below the limit and fewer than 0.1 % fail. Told are the rates, how much
each generator's differ among themselves, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from compress.environment import hardware
from compress.loadtest.generator import Generator, on_cores, split_cores
from compress.loadtest.search import Kind, Probe, Search
from loadtests.peers.answer import Model
from loadtests.peers.bodies import write_requests
from serve.errors import UserError
from serve.launch import start

_ERRORS = 0.001
_CONNECTIONS = 256


class Other:
    """The independent generator, a process of its own."""

    def __init__(self, port: int, requests: Path, limit_ms: float, seconds: float) -> None:
        self._test = {"port": port, "requests": str(requests), "connections": _CONNECTIONS, "warm_up": 2.0}
        self._limit_ms, self._seconds, self._seed = limit_ms, seconds, 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadtests.peers.open_generator"],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def try_rate(self, rate: float, kind: Kind) -> Probe:
        self._seed += 1
        test = {**self._test, "rate": rate, "seconds": self._seconds, "seed": self._seed}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(test), file=self._process.stdin, flush=True)
        if not (line := self._process.stdout.readline()):
            raise UserError("the independent generator ended", "its error is above")
        seen = json.loads(line)
        latencies = sorted(seen["latencies_ms"])
        p99 = latencies[int(0.99 * (len(latencies) - 1))] if latencies else float("inf")
        held = p99 < self._limit_ms and seen["failed"] < _ERRORS * seen["due"]
        return Probe(rate, "held" if held else "broken", kind, round(p99, 2))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def check(wanted: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Search with each generator in turn; the result as plain JSON. Raises UserError."""
    model = Model(wanted.run)
    requests = write_requests(model, folder)["whole"]
    for_server, for_generator = split_cores()
    rates: dict[str, list[float]] = {"limbeck loadtest": [], "independent": []}
    with ExitStack() as stack:
        with on_cores(for_server):
            server = stack.enter_context(start(model.predictor.package.path))
        with on_cores(for_generator):
            other = Other(server.port, requests, wanted.slo_ms, wanted.seconds)
        stack.callback(other.close)
        slo = f"p99<{wanted.slo_ms:g}ms,errors<{100 * _ERRORS:g}%"
        body = "json" if model.task == "text" else "raw"
        for repeat in range(wanted.repeats):
            ours = Generator(server.url, wanted.run.resolve(), slo, folder, body, seed=1000 * repeat)
            ours.cores = for_generator
            for name, try_rate in (("limbeck loadtest", ours.try_rate), ("independent", other.try_rate)):
                found = Search(try_rate, wanted.lowest, 1e5, windows=0).run()
                if found.rate is None:
                    raise UserError(f"{name}: not even {wanted.lowest:g} requests/s hold {slo}", "set --slo-ms higher")
                rates[name].append(found.rate)
                print(f"{name}: {found.rate:.1f} requests/s, limited by {found.limited_by}", file=sys.stderr)
    return {
        "run": wanted.run.name,
        "slo": slo,
        "requests_per_second": rates,
        **_compared(rates),
        "hardware": hardware(),
    }


def _compared(rates: dict[str, list[float]]) -> dict[str, Any]:
    ours, other = rates.values()
    return {
        "ratio_of_medians": round(median(ours) / median(other), 3),
        "spread": {name: round(max(found) / min(found), 3) for name, found in rates.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was found as JSON, and keep it in `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a completed run")
    parser.add_argument("--slo-ms", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a test by the independent generator")
    parser.add_argument("--lowest", type=float, default=50.0, help="requests per second to begin with")
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        with tempfile.TemporaryDirectory() as folder:
            text = json.dumps(check(wanted, Path(folder)), indent=1)
    except UserError as error:
        print(f"{error.message}; {error.hint}", file=sys.stderr)
        return 2
    print(text)
    if wanted.out is not None:
        wanted.out.parent.mkdir(parents=True, exist_ok=True)
        wanted.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
