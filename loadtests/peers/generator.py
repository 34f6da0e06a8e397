"""A closed-loop load generator in a process of its own: each connection sends its next request when it is answered.

One line of JSON on stdin is one test; one line on stdout is what it saw:

    {"port": 3000, "requests": "FILE", "connections": 16, "count": 1000, "warm_up": 50, "seed": 0}

FILE is a JSON list of {"request": base64 of a whole HTTP request, "predictions": the right answer's}. Sockets and
uvloop alone, since the generator must not be what is measured: how busy its core was is part of what it says. Every
answer is kept, and compared when the clock has stopped.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

TOLERANCE = 1e-5  # of a score, as in `limbeck verify`


@dataclass
class Load:
    """Requests still to be sent, and what came of those that were."""

    requests: list[bytes]
    order: list[int]  # which request is sent when
    latencies_ms: list[float] = field(default_factory=list)
    answers: list[tuple[int, int, bytes]] = field(default_factory=list)  # request, status, body
    _next: int = 0

    def take(self) -> int | None:
        """The request that is to be sent next; None: no more."""
        if self._next >= len(self.order):
            return None
        self._next += 1
        return self.order[self._next - 1]


class Connection(asyncio.Protocol):
    """One kept connection with one request under way."""

    def __init__(self, load: Load, ended: asyncio.Future[None]) -> None:
        self._load, self._ended = load, ended
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        received = time.perf_counter()
        self._buffer += data
        parsed = parse_response(self._buffer)
        if parsed is None:
            return
        self._load.latencies_ms.append(1000 * (received - self._sent))
        self._load.answers.append((self._at, *parsed))
        self._buffer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_exception(ConnectionError(f"the server closed the connection: {exc}"))

    def _send(self) -> None:
        at = self._load.take()
        if at is None:
            self._ended.set_result(None)
            self._transport.close()
            return
        self._at, self._sent = at, time.perf_counter()
        self._transport.write(self._load.requests[at])


def parse_response(content: bytes) -> tuple[int, bytes] | None:
    """Status and body of a response that is there as a whole; None: more is to come. Raises ValueError."""
    head, found, body = content.partition(b"\r\n\r\n")
    if not found:
        return None
    lines = head.split(b"\r\n")
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return (int(lines[0].split()[1]), body) if len(body) >= int(value) else None
    raise ValueError(f"a response without Content-Length: {head[:200]!r}")


async def run(load: Load, port: int, connections: int) -> float:
    """Send all of a load; the seconds that it took."""
    loop = asyncio.get_running_loop()
    ended = [loop.create_future() for _ in range(connections)]
    start = time.perf_counter()
    for future in ended:
        await loop.create_connection(lambda future=future: Connection(load, future), "127.0.0.1", port)
    await asyncio.gather(*ended)
    return time.perf_counter() - start


def problem_of(status: int, body: bytes, expected: list[dict[str, Any]]) -> str:
    """What is wrong with an answer; empty if nothing is."""
    if status != 200:
        return f"status {status}: {body[:200].decode(errors='replace')}"
    given = json.loads(body)["predictions"]
    labels = [[top["label"] for top in one["top_k"]] for one in given]
    if labels != [[top["label"] for top in one["top_k"]] for one in expected]:
        return f"{given}, expected {expected}"
    pairs = zip(
        itertools.chain(*(one["top_k"] for one in given)),
        itertools.chain(*(one["top_k"] for one in expected)),
        strict=True,
    )
    if any(abs(own["score"] - other["score"]) > TOLERANCE for own, other in pairs):
        return f"{given}, expected {expected}"
    return ""


def measure(test: dict[str, Any]) -> dict[str, Any]:
    """One test, after requests that are not counted."""
    content = json.loads(Path(test["requests"]).read_text(encoding="utf-8"))
    requests = [base64.b64decode(one["request"]) for one in content]
    draw = random.Random(test["seed"])
    counts = (max(test["warm_up"], test["connections"]), test["count"])
    warm_up, load = (Load(requests, draw.choices(range(len(requests)), k=count)) for count in counts)
    uvloop.run(run(warm_up, test["port"], test["connections"]))
    processor = time.process_time()
    seconds = uvloop.run(run(load, test["port"], test["connections"]))
    busy = (time.process_time() - processor) / seconds
    problems = [problem_of(status, body, content[at]["predictions"]) for at, status, body in load.answers]
    wrong = [problem for problem in problems if problem]
    return {
        "seconds": seconds,
        "warmed_up": counts[0],
        "latencies_ms": load.latencies_ms,
        "generator_busy": busy,
        "wrong": len(wrong),
        "first_problem": wrong[0] if wrong else "",
    }


def main() -> None:
    """Test after test, until stdin ends."""
    for line in sys.stdin:
        try:
            answer = measure(json.loads(line))
        except (OSError, ValueError, LookupError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
