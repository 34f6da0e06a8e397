"""An open-loop generator that shares nothing with that of `limbeck loadtest`, to check the rate that it finds.

Requests are due at Poisson times and go out on the first free of many kept connections; a request for which none is
free waits, and its wait counts. Between two requests the process naps and looks, as a timer of uvloop is only good to
a millisecond: give it a core of its own.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from loadtests.peers.generator import parse_response, problem_of

_NAP_S = 5e-5  # between two looks at the clock and the sockets
_PATIENCE_S = 5.0  # for answers after the last request was sent


@dataclass
class Answered:
    """What came of one request."""

    due: float  # s after the start
    sent: float
    done: float
    at: int  # which request it was
    status: int
    body: bytes


@dataclass
class Line:
    """Requests that are due, and the connections that are free for them."""

    requests: list[bytes]
    started: float = 0.0
    free: list[Kept] = field(default_factory=list)
    waiting: deque[tuple[float, int]] = field(default_factory=deque)
    answered: list[Answered] = field(default_factory=list)
    lost: int = 0  # connections that the server closed with a request under way

    def send_waiting(self) -> None:
        while self.free and self.waiting:
            self.free.pop().send(*self.waiting.popleft())


class Kept(asyncio.Protocol):
    """A kept connection."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._buffer = b""
        self._under_way: tuple[float, float, int] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._line.free.append(self)

    def send(self, due: float, at: int) -> None:
        self._under_way = due, time.perf_counter() - self._line.started, at
        self._transport.write(self._line.requests[at])

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        parsed = parse_response(self._buffer)
        if parsed is None or self._under_way is None:
            return
        due, sent, at = self._under_way
        self._line.answered.append(Answered(due, sent, time.perf_counter() - self._line.started, at, *parsed))
        self._buffer, self._under_way = b"", None
        self._line.free.append(self)
        self._line.send_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._line.lost += self._under_way is not None
        if self in self._line.free:
            self._line.free.remove(self)

    def close(self) -> None:
        self._transport.close()


async def run(line: Line, port: int, connections: int, schedule: list[tuple[float, int]]) -> None:
    """Send what is due, at (seconds, which request), then wait for the answers."""
    loop = asyncio.get_running_loop()
    opened = [(await loop.create_connection(lambda: Kept(line), "127.0.0.1", port))[1] for _ in range(connections)]
    line.started = time.perf_counter()
    for due, at in schedule:
        while time.perf_counter() - line.started < due:
            time.sleep(_NAP_S)
            await asyncio.sleep(0)
        line.waiting.append((due, at))
        line.send_waiting()
    end = time.perf_counter() + _PATIENCE_S
    while len(line.answered) + line.lost < len(schedule) and time.perf_counter() < end:
        await asyncio.sleep(0.01)
    for connection in opened:
        connection.close()


def poisson(rate: float, seconds: float, requests: int, seed: int) -> list[tuple[float, int]]:
    """When requests are due [s], and which of `requests` each is."""
    draw, now, schedule = random.Random(seed), 0.0, []
    while (now := now + draw.expovariate(rate)) < seconds:
        schedule.append((now, draw.randrange(requests)))
    return schedule


def measure(test: dict[str, Any]) -> dict[str, Any]:
    """One test: latencies from when a request was due, and how late the generator itself was."""
    content = json.loads(Path(test["requests"]).read_text(encoding="utf-8"))
    line = Line([base64.b64decode(one["request"]) for one in content])
    schedule = poisson(test["rate"], test["warm_up"] + test["seconds"], len(content), test["seed"])
    uvloop.run(run(line, test["port"], test["connections"], schedule))
    counted = [each for each in line.answered if each.due >= test["warm_up"]]
    problems = [problem_of(each.status, each.body, content[each.at]["predictions"]) for each in counted]
    wrong = [problem for problem in problems if problem]
    due = sum(at >= test["warm_up"] for at, _ in schedule)
    late = sorted(1000 * (each.sent - each.due) for each in counted)
    return {
        "due": due,
        "latencies_ms": [1000 * (each.done - each.due) for each in counted],
        "failed": due - len(counted) + len(wrong),
        "first_problem": wrong[0] if wrong else "",
        "sent_late_p50_ms": late[len(late) // 2] if late else None,
    }


if __name__ == "__main__":
    for text in sys.stdin:
        print(json.dumps(measure(json.loads(text))), flush=True)
