"""Three times as many requests as a server can answer: what it still answers, how fast it refuses, what it remembers.

    python -m benchmarks.overload runs/sst2 [--factor 3] [--rounds 5] [--seconds 600] [--out FILE]

A round is the capacity and then an overload, of four seconds each, so that both are of one moment of the machine.
Capacity: 16 connections that always have a request under way, which gives the requests per second. Overload: an open
loop at `factor` times that rate, Poisson arrivals on an absolute schedule; latencies count from when a request was due.
Goodput is right answers per second while requests are sent. Last comes one long overload, for the refusals and the
memory. The generator has the last core to itself and runs in this process, with bare sockets. The server's memory is
the sum of its processes' proportional shares (PSS), every five seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import uvloop

from compress.environment import hardware
from compress.loadtest.generator import on_cores, split_cores
from loadtests.bodies import SINGLE
from loadtests.payloads import PAYLOADS, Item, Payloads, load_payloads
from loadtests.schedule import Phase, arrivals
from serve.launch import ServerProcess, start
from serve.package import MANIFEST

CONNECTIONS, WARM_UP_SECONDS, ROUND_SECONDS, MEMORY_SECONDS, DRAIN_SECONDS = 16, 3.0, 4.0, 5.0, 10.0
REFUSED = (429, 503)

Requests = Sequence[tuple[bytes, Item]]


@dataclass
class Sent:
    """One request: its bytes, the item that it asks about, and when it was due (loop time)."""

    content: bytes
    item: Item
    due: float


@dataclass
class Seen:
    """What came of the requests of a test."""

    payloads: Payloads
    answered_ms: list[float] = field(default_factory=list)
    in_time: int = 0  # of the answered, while requests were still sent
    refused_ms: list[float] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)
    lag_ms: list[float] = field(default_factory=list)  # by which the generator itself was late

    def take(self, sent: Sent, status: int, body: bytes, milliseconds: float) -> None:
        if status == 200:
            if problem := self.payloads.wrong(json.loads(body), [sent.item]):
                self.other[f"wrong: {problem}"[:80]] += 1
            else:
                self.answered_ms.append(milliseconds)
        elif status in REFUSED:
            self.refused_ms.append(milliseconds)
        else:
            self.other[f"status {status}"] += 1


class Connection(asyncio.Protocol):
    """A kept connection with at most one request under way; when it is answered it goes back to the client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._buffer = b""
        self._sent: Sent | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self, sent: Sent) -> None:
        self._sent = sent
        self.transport.write(sent.content)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head) or self._sent is None:
            return
        sent, self._sent, self._buffer = self._sent, None, b""
        milliseconds = 1000 * (self._client.loop.time() - sent.due)
        self._client.seen.take(sent, int(head.split(b" ", 2)[1]), body, milliseconds)
        self._client.answered(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._sent is not None:
            self._client.seen.other[f"connection lost: {error}"] += 1
        self._client.lost(self)


def _length(head: bytes) -> int:
    lines = (line.lower().partition(b":") for line in head.split(b"\r\n"))
    return next(int(value) for name, _, value in lines if name == b"content-length")


class Client:
    """Sends over as many connections as there are requests under way."""

    def __init__(self, port: int, payloads: Payloads, requests: Requests) -> None:
        self.loop = asyncio.get_running_loop()
        self.seen = Seen(payloads)
        self._port, self._requests = port, cycle(requests)
        self._idle: deque[Connection] = deque()
        self._all: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._closed_until = 0.0

    async def closed(self, connections: int, seconds: float) -> float:
        """Requests answered per second where each connection waits for its answer."""
        begin = self.loop.time()
        self._closed_until = begin + seconds
        for _ in range(connections):
            await self._send_new(self._next(self.loop.time()))
        await asyncio.sleep(seconds)
        rate = len(self.seen.answered_ms) / (self.loop.time() - begin)
        await asyncio.sleep(1)
        return rate

    async def open(self, rate: float, seconds: float, seed: int) -> None:
        """Send at `rate`, whatever comes back, and wait for the last answers."""
        begin = self.loop.time()
        for due in arrivals((Phase(rate, seconds),), seed):
            wait = begin + due - self.loop.time()
            if wait > 0.0005:
                await asyncio.sleep(wait)
            else:
                await asyncio.sleep(0)
            self.seen.lag_ms.append(1000 * max(self.loop.time() - begin - due, 0.0))
            self._dispatch(self._next(begin + due))
        self.seen.in_time = len(self.seen.answered_ms)
        end = self.loop.time() + DRAIN_SECONDS
        while len(self._idle) < len(self._all) and self.loop.time() < end:
            await asyncio.sleep(0.05)
        self.seen.other["never answered"] += len(self._all) - len(self._idle)

    def close(self) -> None:
        for connection in self._all:
            connection.transport.close()

    def answered(self, connection: Connection) -> None:
        if self.loop.time() < self._closed_until:
            connection.send(self._next(self.loop.time()))
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _next(self, due: float) -> Sent:
        content, item = next(self._requests)
        return Sent(content, item, due)

    def _dispatch(self, sent: Sent) -> None:
        if self._idle:
            self._idle.pop().send(sent)
        else:
            task = self.loop.create_task(self._send_new(sent))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _send_new(self, sent: Sent) -> None:
        try:
            _, connection = await self.loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
        except OSError as error:
            self.seen.other[f"no connection: {error}"] += 1
            return
        self._all.add(connection)
        connection.send(sent)


async def watch_memory(pid: int, into: list[float]) -> None:
    """MB that the server's processes hold together, every few seconds."""
    while True:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        into.append(sum(process.memory_full_info().pss for process in processes) / 1e6)
        await asyncio.sleep(MEMORY_SECONDS)


async def capacity_of(port: int, payloads: Payloads, requests: Requests, seconds: float) -> float:
    """Requests per second that a few connections get."""
    client = Client(port, payloads, requests)
    try:
        return await client.closed(CONNECTIONS, seconds)
    finally:
        client.close()


async def overload_of(port: int, payloads: Payloads, requests: Requests, rate: float, seconds: float) -> Seen:
    """What comes of requests at a rate, whatever comes back."""
    client = Client(port, payloads, requests)
    try:
        await client.open(rate, seconds, seed=0)
        return client.seen
    finally:
        client.close()


async def measure(server: ServerProcess, payloads: Payloads, options: argparse.Namespace) -> dict[str, Any]:
    """The rounds, and the long overload at `factor` times their median capacity."""
    requests = list(_requests(server.port, payloads))
    asked = (server.port, payloads, requests)
    await capacity_of(*asked, WARM_UP_SECONDS)
    rounds = []
    for _ in range(options.rounds):
        capacity = await capacity_of(*asked, ROUND_SECONDS)
        seen = await overload_of(*asked, options.factor * capacity, ROUND_SECONDS)
        rounds.append((capacity, seen.in_time / ROUND_SECONDS))
    memory: list[float] = []
    watching = asyncio.create_task(watch_memory(server.pid, memory))
    rate = options.factor * median(capacity for capacity, _ in rounds)
    seen = await overload_of(*asked, rate, options.seconds)
    watching.cancel()
    return {
        "factor": options.factor,
        "goodput_of_capacity": round(median(goodput / capacity for capacity, goodput in rounds), 3),
        "rounds": [_round(capacity, goodput) for capacity, goodput in rounds],
        "long": summary(rate, options.seconds, seen, memory),
    }


def _round(capacity: float, goodput: float) -> dict[str, float]:
    return {
        "capacity_rps": round(capacity, 1),
        "goodput_rps": round(goodput, 1),
        "goodput_of_capacity": round(goodput / capacity, 3),
    }


def _requests(port: int, payloads: Payloads) -> Iterator[tuple[bytes, Item]]:
    make = SINGLE["json" if payloads.task == "text" else "raw"]
    for item in payloads.items:
        request = make([item])
        body = request.body
        head = f"POST /classify HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {request.content_type}\r\n"
        yield f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, item


def summary(rate: float, seconds: float, seen: Seen, memory: list[float]) -> dict[str, Any]:
    """The figures of one overload."""
    tenth = max(1, len(memory) // 10)
    return {
        "offered_rps": round(rate, 1),
        "seconds": seconds,
        "goodput_rps": round(seen.in_time / seconds, 1),
        "answered_ms": _percentiles(seen.answered_ms),
        "refused": len(seen.refused_ms),
        "refused_ms": _percentiles(seen.refused_ms),
        "refused_within_50_ms": round(float(np.mean(np.array(seen.refused_ms) <= 50)), 5) if seen.refused_ms else None,
        "other": dict(+seen.other),
        "generator_lag_ms": _percentiles(seen.lag_ms),
        "memory_mb_second_tenth": round(float(np.median(memory[tenth : 2 * tenth] or memory)), 1),
        "memory_mb_last_tenth": round(float(np.median(memory[-tenth:])), 1),
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    marks = np.percentile(values, [50, 99, 100])
    return {name: round(float(mark), 2) for name, mark in zip(("p50", "p99", "max"), marks, strict=True)}


def _package(run: Path, payloads: Payloads) -> Path:
    """The package whose answers the payloads hold, whether or not the run selected it in the end."""
    for manifest in run.glob(f"packages/*/{MANIFEST}"):
        if json.loads(manifest.read_text(encoding="utf-8"))["id"] == payloads.model_id:
            return manifest.parent
    raise SystemExit(f"error: {run} has no package {payloads.model_id}, which its {PAYLOADS} was measured with")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--factor", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    payloads = load_payloads(options.run / PAYLOADS)
    server_cores, own_core = split_cores()
    with on_cores(server_cores), start(_package(options.run, payloads)) as server, on_cores(own_core):
        result = uvloop.run(measure(server, payloads, options))
    content = {"run": options.run.name, "model_id": payloads.model_id, "at": time.strftime("%Y-%m-%d"), **result}
    content["hardware"] = hardware()
    print(json.dumps(content, indent=2))
    if options.out:
        options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
