"""The open loop against a server that stalls: it shows what a closed loop leaves out."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PREDICTION = {"label": "good", "score": 0.75}


class Stub:
    """Answers every POST alike; every `period` seconds it does nothing at all for `stall` seconds."""

    def __init__(self, period: float = 1e9, stall: float = 0.0, delay: float = 0.0) -> None:
        self._period, self._stall, self._delay = period, stall, delay
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self.port, self.served = 0, 0
        threading.Thread(target=self._run, daemon=True).start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._loop.call_later(self._period / 2, self._stall_now)
        self._ready.set()
        self._loop.run_forever()

    def _stall_now(self) -> None:
        time.sleep(self._stall)
        self._loop.call_later(self._period - self._stall, self._stall_now)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                lines = dict(line.split(b": ", 1) for line in request.lower().split(b"\r\n")[1:-2])
                inputs = json.loads(await reader.readexactly(int(lines[b"content-length"])))["inputs"]
                await asyncio.sleep(self._delay)
                self.served += 1
                answer = json.dumps({"model": {"id": "m"}, "predictions": [PREDICTION] * len(inputs)})
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n{answer}".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    content = {"model_id": "m", "task": "text", "items": [{"input": "fine", "label": "good", "score": 0.75}]}
    (tmp_path / "run" / "loadtest").mkdir(parents=True)
    (tmp_path / "run" / "loadtest" / "payloads.json").write_text(json.dumps(content))
    return tmp_path / "run"


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    yield server
    server.stop()


def start(run: Path, port: int, *options: str) -> subprocess.Popen[str]:
    file = str(ROOT / "loadtests" / "locustfile.py")
    command = [sys.executable, "-m", "locust", "-f", file, "--host", f"http://127.0.0.1:{port}", "--headless"]
    return subprocess.Popen(
        [*command, "--only-summary", *options],
        env={**os.environ, "LIMBECK_RUN": str(run), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=90)
    return process.returncode, output


def percentile(file: Path, percent: float) -> float:
    """Of the histogram that was written: milliseconds."""
    counts = {float(at): n for at, n in json.loads(file.read_text())["histogram_ms"].items()}
    passed, total = 0, sum(counts.values())
    for at, count in sorted(counts.items()):
        passed += count
        if passed >= total * percent / 100:
            return at
    raise AssertionError("no samples")


def test_a_stall_of_a_second_is_in_our_99th_percentile_and_not_in_a_closed_loops(run: Path) -> None:
    servers = [Stub(period=10.0, stall=1.0) for _ in range(2)]
    ours, closed = run / "open.json", run / "closed.json"
    waiting = [
        start(run, servers[0].port, "--load", "60x9.5", "--out", str(ours)),
        start(run, servers[1].port, "-u", "1", "-t", "9s", "--out", str(closed)),
    ]
    outputs = [finish(process) for process in waiting]
    for server in servers:
        server.stop()
    assert [code for code, _ in outputs] == [0, 0], outputs
    assert percentile(ours, 99) > 600  # a tenth of the requests were due while nothing was answered
    assert percentile(closed, 99) < 300  # one request waited; it stands for all that were not sent
    assert json.loads(ours.read_text())["summary"]["requests"] == pytest.approx(570, rel=0.15)


def test_what_cannot_be_sent_is_dropped_and_counts_as_failed(run: Path) -> None:
    server = Stub(delay=0.5)
    out = run / "drops.json"
    options = ["--load", "100x2", "--max-in-flight", "5", "--slo", "p50<20s,errors<1%", "--out", str(out)]
    code, output = finish(start(run, server.port, *options))
    server.stop()
    written: dict[str, Any] = json.loads(out.read_text())
    assert code == 1, output
    assert (written["verdict"], written["cause"]) == ("FAIL", "broken")
    assert 100 < written["summary"]["dropped"] < written["summary"]["requests"]
    assert server.served == written["summary"]["requests"] - written["summary"]["dropped"]
    assert "never sent: too many requests were under way" in output


def test_a_wrong_answer_fails_and_few_requests_prove_nothing(run: Path, stub: Stub) -> None:
    code, output = finish(start(run, stub.port, "--rate", "50", "-t", "1s", "--slo", "p99<100s,errors<1%"))
    assert code == 3, output
    assert "NO VERDICT" in output
    assert "10,000 are needed" in output
    payloads = run / "loadtest" / "payloads.json"
    payloads.write_text(payloads.read_text().replace("good", "bad"))
    code, output = finish(start(run, stub.port, "--rate", "50", "-t", "1s"))
    assert code == 1
    assert "label 'good', expected 'bad'" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rate", "5", "--load", "5x1"], "both say how much to send"),
        (["--rate", "5"], "--rate needs to know for how long"),
        (["--rate", "0", "-t", "1s"], "expected requests per second above 0"),
        (["--load", "5"], "is no phase"),
        (["--slo", "p99<20", "--load", "5x1"], "is no part of an objective"),
        (["--load", "5x1", "--body", "raw"], "texts are sent as JSON alone"),
    ],
)
def test_what_makes_no_sense_is_said_in_two_lines(run: Path, stub: Stub, options: list[str], message: str) -> None:
    code, output = finish(start(run, stub.port, *options))
    assert code != 0
    assert message in output
    assert "hint: " in output
    assert "Traceback" not in output
    assert stub.served == 0
