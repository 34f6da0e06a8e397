"""A server with all layers that a request to classify can meet, on real sockets, and a client of bytes."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from uvicorn.server import ServerState

from serve.door import Door
from serve.edge import Edge
from serve.engine import Engine
from serve.express import Express
from serve.gate import Gate
from serve.limits import Limits
from serve.predictor import Predictor
from serve.protocol import BoundedProtocol
from serve.registry import Registry
from serve.routes import Addresses, Routes
from serve.tokens import Tokens

LIMITS = Limits(max_body_bytes=3000)
TOKEN = "a-token-of-this-server"
GOOD = b'{"inputs": ["a good film"]}'
OTHER = b'{"inputs": ["film film a"], "top_k": 2}'
LONG = b'{"inputs": ["' + b"film " * 500 + b'"]}'


def post(
    body: bytes = GOOD, path: bytes = b"/classify", headers: bytes = b"", kind: bytes = b"application/json"
) -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: %b\r\nContent-Length: %d\r\n" % (path, kind, len(body))
    return head + headers + b"\r\n" + body


class Watched:
    """An engine that says which thread its model ran in, and that can fail or take long."""

    def __init__(self, package: Path) -> None:
        self.engine = Engine(Predictor.load(package), LIMITS)
        self.by_loop: list[bool] = []
        self.before: Callable[[], None] = lambda: None
        compute = self.engine._predictor.compute

        def watched(inputs: np.ndarray) -> np.ndarray:
            self.by_loop.append(threading.current_thread() is threading.main_thread())
            self.before()
            return compute(inputs)

        self.engine._predictor.compute = watched  # type: ignore[method-assign]


@contextmanager
def one_thread(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """An engine whose short requests may go by express, however slow the test's machine is."""
    monkeypatch.setattr("serve.engine.pool_size", lambda serving: 1)
    monkeypatch.setattr("serve.brief.MOST_S", 10.0)
    watched = Watched(package)
    yield watched
    watched.engine.close()


class Server:
    """A listening server with all layers that a request to classify can meet."""

    def __init__(self, watched: Watched, express: bool, capacity: int, seconds: float, tokens: Tokens | None) -> None:
        async def bentoml(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError("BentoML is not asked to classify")

        self.watched = watched
        self.gate = Gate(capacity, seconds)
        self.registry = Registry({"tiny": watched.engine}, "tiny")
        self.state = ServerState()
        self.letting_go = False
        state = {"models": self.registry, "gate": self.gate}
        routes = Routes(bentoml, state, access_log=True)
        self.tally = routes.tally
        door = Door(state, routes.tally, tokens, True, lambda: self.letting_go)
        fields = {
            "limits": LIMITS,
            "door": door,
            "express": Express(state, door, routes.tally, True) if express else None,
        }
        self.app = Edge(routes, Addresses(admin=False), tokens)
        self.kind = type("Bounded", (BoundedProtocol,), fields)
        self.port = 0

    async def answers(self, *pieces: bytes, most: int = 1) -> list[tuple[int, dict[bytes, bytes], bytes]]:
        """Status, headers and body of each answer to what is sent piece by piece on one connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.02)
        answers = []
        while len(answers) < most:
            status, *lines = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).split(b"\r\n")[:-2]
            headers = dict(line.lower().split(b": ", 1) for line in lines)
            answers.append((int(status.split()[1]), headers, await reader.readexactly(int(headers[b"content-length"]))))
        writer.close()
        return answers

    async def warm(self) -> None:
        """The first request of each length tells how long they take."""
        for size_bytes in (0, *(1 << power for power in range(12))):
            self.watched.engine.brief.took(size_bytes, 0.0)
        assert (await self.answers(post()))[0][0] == 200
        self.watched.by_loop.clear()


@asynccontextmanager
async def serving(
    watched: Watched, express: bool = True, capacity: int = 8, seconds: float = 30.0, tokens: Tokens | None = None
) -> AsyncIterator[Server]:
    server = Server(watched, express, capacity, seconds, tokens)
    config, loop = uvicorn.Config(server.app, timeout_keep_alive=5, log_config=None), asyncio.get_running_loop()
    listening = await loop.create_server(lambda: server.kind(config, server.state, {}, loop), "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for connection in list(server.state.connections):
            connection.transport.abort()


def run(watched: Watched, talk: Callable[[Server], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    async def whole() -> Any:
        async with serving(watched, **options) as server:
            return await asyncio.wait_for(talk(server), 20)

    return asyncio.run(whole())


def without_times(answer: tuple[int, dict[bytes, bytes], bytes]) -> Any:
    status, headers, body = answer
    timing = re.sub(rb"dur=[0-9.]+", b"", headers.get(b"server-timing", b""))
    changing = {b"server-timing": timing, b"date": b""}
    return status, {**headers, **{name: value for name, value in changing.items() if name in headers}}, body
