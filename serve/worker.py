"""What a worker process does beside answering: it drains when told to end, and shares connections with the others.

Draining: at SIGTERM uvicorn closes its listener at once, so a load balancer learns of it by failed requests. Here the
listener stays open for LIMBECK_DRAIN_SECONDS: GET /readyz answers 503, all else is answered as before with
`Connection: close`, and only then uvicorn ends, which waits for the requests in flight. SIGINT (Ctrl-C) ends at once.

Sharing: whichever worker wakes first accepts a connection, and under keep-alive it keeps it. A worker that holds more
than its share lets some go with `Connection: close`, until the next look at the board no more than it has too many.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from serve.board import Board
from serve.edge import App, Exchange, Message, Receive, Scope, Send
from serve.errors import RequestError
from serve.logs import log

_LOOK_S = 0.1  # between two looks at the board
_CLOSE = (b"connection", b"close")


class Worker:
    """The outermost ASGI layer, around `app`."""

    def __init__(self, app: App, drain_s: float) -> None:
        self._app = app
        self._drain_s = drain_s
        self._draining = False
        self._to_close = 0  # connections that are let go at their next answer
        self._board = Board.from_env()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._beginning(send))
        elif scope["type"] != "http" or not self.letting_go:
            await self._app(scope, receive, send)
        elif self._draining and scope["path"] == "/readyz":
            exchange = Exchange(scope, self._closing(send))
            hint = "the server is about to end: ask another, or ask again in a moment"
            await exchange.fail(RequestError(503, "draining", "the server is draining", hint))
        else:
            self._to_close = max(0, self._to_close - 1)
            await self._app(scope, receive, self._closing(send))

    @property
    def letting_go(self) -> bool:
        """Some answers now end their connection."""
        return self._draining or self._to_close > 0

    def _beginning(self, send: Send) -> Send:
        """Passes the application's word on, and takes up work as a worker once it has started."""

        async def passing(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._begin()
            await send(message)

        return passing

    def _closing(self, send: Send) -> Send:
        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
            await send(message)

        return closing

    def _begin(self) -> None:
        server = _uvicorn_server()
        if server is None:  # in a test's client, say, which sends no signals either
            return
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGTERM, self._drainer(loop, server.handle_exit))
        if self._board is not None:
            self._look(loop, self._board, server)

    def _drainer(
        self, loop: asyncio.AbstractEventLoop, end: Callable[[int, FrameType | None], None]
    ) -> Callable[[int, FrameType | None], None]:
        """The handler of SIGTERM. A second one changes nothing: a signal to the whole group reaches a worker twice."""

        def drain(number: int, frame: FrameType | None) -> None:
            if not self._draining:
                self._draining = True
                loop.call_soon_threadsafe(loop.call_later, self._drain_s, end, number, None)
                log.info("draining: /readyz says so for %g s, then this worker ends", self._drain_s)

        return drain

    def _look(self, loop: asyncio.AbstractEventLoop, board: Board, server: uvicorn.Server) -> None:
        """Write on the board how many connections are held here, and see how many that is too many."""
        if self._draining:
            board.leave()
            return
        held = len(server.server_state.connections)
        self._to_close = board.surplus(held)
        loop.call_later(_LOOK_S, self._look, loop, board, server)


def _uvicorn_server() -> uvicorn.Server | None:
    """The server that this application runs in: it has put its handler of SIGTERM in place before it starts us."""
    if threading.current_thread() is not threading.main_thread():
        return None
    handler: Any = signal.getsignal(signal.SIGTERM)
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, uvicorn.Server) else None
