"""Requests that need no application: uvicorn's protocol, which asks the door and the express first.

uvicorn makes a task, a scope and a cycle of messages for each request. `serve.door` refuses and `serve.express` answers
without them; what neither takes is uvicorn's, as it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.door import Door
from serve.express import Express, Ticket
from serve.headers import Headers

if TYPE_CHECKING:
    from serve.engine import Engine


class ShortcutProtocol(HttpToolsProtocol):
    """One connection."""

    door: Door | None = None
    express: Express | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._turned_away = False  # the request that is being read is answered, and what comes of its body ignored
        self._held = bytearray()  # the body of a request of which nobody was told yet, for
        self._held_for: Engine | None = None  # this model; None: there is no such request
        self._first: Any = None  # of the requests under way, that whose answer is the next; `cycle` is the last of them
        self._idle_since = self.loop.time()  # counts only while no request is under way
        if self.express is not None:
            self.express.arrived()
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._give_up()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        """Nobody reads what would still be answered: the first writes nothing, and no other has its turn."""
        self.pipeline.clear()
        for cycle in (self._first, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    @property
    def idle(self) -> bool:
        """No request is under way: none has begun, or its head is not complete, or the last one is answered."""
        return self.cycle is None or self.cycle.response_complete

    def on_message_begin(self) -> None:
        self._turned_away = False
        self._held, self._held_for = bytearray(), None
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if not self._plain_post() or not (self._turn_away() or self._hold()):
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._held_for is not None:
            self._held += body
        elif not self._turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._turned_away:
            self.on_response_complete()  # from now on, not since its answer, the connection waits for another request
        elif not self._send_by_express():
            self._let_in()
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def _plain_post(self) -> bool:
        """Whether a request can be answered without asking the application: nothing but it is to be heeded."""
        parser = self.parser
        plain = self.idle and parser.get_method() == b"POST" and parser.get_http_version() == "1.1"
        if not plain or not parser.should_keep_alive() or parser.should_upgrade():
            return False
        return not (
            self.expect_100_continue or self.flow.write_paused or self.access_log or self.transport.is_closing()
        )

    def _turn_away(self) -> bool:
        """Refuse a request where the door says so."""
        if self.door is None or not self.door.full:
            return False
        answer = self.door.refuse(self.url, self.headers, self.server_state.default_headers)
        if answer is None:
            return False
        self._turned_away, self._idle_since = True, self.loop.time()
        self.transport.write(answer)
        return True

    def _hold(self) -> bool:
        """Tell nobody of a request before the rest of what has arrived is read, where it may then go by express."""
        if self.express is not None:
            self._held_for = self.express.engine_for(self.url, self.headers)
        return self._held_for is not None

    def _let_in(self) -> None:
        """Have the application answer a request that was held, if one was. To be called when all that came is read:
        a body that is still to come has a deadline there."""
        if self._held_for is not None:
            self._held_for = None
            super().on_headers_complete()
            if self._held:
                super().on_body(bytes(self._held))

    def _send_by_express(self) -> bool:
        if self._held_for is None or self.express is None:
            return False
        ticket = self.express.take(self._held_for, self.url, self.headers, bytes(self._held), self._answer)
        if ticket is None:
            return False
        self._held, self._held_for = bytearray(), None
        ticket.keep_alive = self.parser.should_keep_alive()  # which what follows a body in chunks may have changed
        self.cycle = self._first = ticket  # type: ignore[assignment]  # all that uvicorn asks of its own
        return True

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._first = cycle
        super()._start_asgi_task(cycle, app)

    def _answer(self, ticket: Ticket, answer: Callable[[Headers], bytes]) -> None:
        """End a request that went by express."""
        self._first = None
        if self.cycle is ticket:
            self.cycle = None  # type: ignore[assignment]  # else a connection that waits would keep the model
        ticket.response_complete = True
        closing: Headers = [] if ticket.keep_alive else [(b"connection", b"close")]
        self.transport.write(answer([*self.server_state.default_headers, *closing]))
        if closing:
            self.transport.close()
        self.on_response_complete()
