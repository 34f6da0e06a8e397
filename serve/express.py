"""Short requests to a model of a few milliseconds, answered by the event loop: no application, no task, no thread.

After each model run the processor's caches hold the model, and all code that a request passes has to come back into
them; a thread besides has to be woken, and to win Python's lock. So a request that arrived whole, in one piece with its
body, goes from the protocol to the model and back. One is answered at each turn of the loop, which reads, refuses and
says that it lives in between. It accepts one connection at each turn, too: those go first, or a hundred that come at
once would wait for a hundred answers.

Where a thread would gain something, the application is asked as ever: when the package has two of them, and when a
model run takes longer (`serve.brief`), and while a thread works on one that does: the loop would share the processor
with it, and health checks beside a batch of 64 texts waited for 18 ms instead of 2 (medians, by hand, under load).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from serve.door import Door
from serve.edge import internal_error
from serve.errors import RequestError
from serve.gate import Gate, late
from serve.headers import Headers, request_id_of
from serve.logs import log_request
from serve.raw import RawAnswer, RawError
from serve.stopwatch import Stopwatch
from serve.tally import Tally

if TYPE_CHECKING:
    from serve.answers import Answer
    from serve.engine import Engine

Answered = Callable[["Ticket", Callable[[Headers], bytes]], None]
_ANSWER = RawAnswer()
_MOST_GIVEN = 64  # turns in a row to new connections: a flood of them must not keep the answers back


class Ticket:
    """A request under way, with all that uvicorn's protocol asks of one (its `RequestResponseCycle`)."""

    def __init__(self, engine: Engine, url: bytes, headers: Headers, body: bytes, answered: Answered) -> None:
        """`answered` is called once, with this ticket and what makes the whole answer; not if nobody listens."""
        self.engine, self.url, self.headers, self.body = engine, url, headers, body
        self.answered = answered
        self.stopwatch = Stopwatch()
        self.response_complete = self.disconnected = self.more_body = False
        self.keep_alive = True

    @property
    def message_event(self) -> Ticket:
        """Not kept: a ticket that referred to itself would wait for the garbage collector."""
        return self

    def set(self) -> None:
        """As `asyncio.Event` has it: nobody waits for more of the body."""


class Express:
    """The tickets of one worker. Used from its event loop alone."""

    def __init__(self, state: Mapping[str, Any], door: Door, tally: Tally, access_log: bool = False) -> None:
        """`state` is the service's, as in `Routes`."""
        self._state = state
        self._door = door
        self._tally = tally
        self._access_log = access_log
        self._waiting: deque[Ticket] = deque()
        self._turning = False
        self._arrived = False  # a connection, since the last turn
        self._given = 0  # turns in a row to connections

    def arrived(self) -> None:
        """A connection was accepted: another may wait behind it."""
        self._arrived = True

    def engine_for(self, url: bytes, headers: Headers) -> Engine | None:
        """The model whose answer a POST with this head may get here, should its body be short and already there."""
        gate: Gate | None = self._state.get("gate")
        if gate is None or self._door.letting_go:
            return None
        engine = self._door.asked(url, headers)
        if engine is None or not engine.brief.ever:
            return None
        # Only long ones count: if any request in a thread did, the short ones that a long one has sent there would send
        # the next ones after them, and in a server that is never empty for good.
        engines, _ = self._state["models"].current
        return None if any(each.long_inside for each in engines.values()) else engine

    def take(self, engine: Engine, url: bytes, headers: Headers, body: bytes, answered: Answered) -> Ticket | None:
        """A ticket for a request of which `engine_for` has said `engine`; None: the application shall answer it."""
        gate: Gate = self._state["gate"]
        if gate.full or len(body) > engine.limits.max_body_bytes or not engine.brief.likely(body):
            return None
        ticket = Ticket(engine, url, headers, body, answered)
        gate.moved(1)
        self._waiting.append(ticket)
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)
        return ticket

    def _turn(self) -> None:
        """Answer the first, and have the others wait for the next turns."""
        if self._arrived and self._given < _MOST_GIVEN:
            self._arrived, self._given = False, self._given + 1
            asyncio.get_running_loop().call_soon(self._turn)
            return
        self._given = 0
        ticket = self._waiting.popleft()
        self._turning = bool(self._waiting)
        if self._turning:
            asyncio.get_running_loop().call_soon(self._turn)
        gate: Gate = self._state["gate"]
        try:
            if not ticket.disconnected:
                self._answer(ticket, gate.seconds)
        finally:
            gate.moved(-1)

    def _answer(self, ticket: Ticket, seconds: float) -> None:
        """Answer first and count afterwards, as `Routes` does."""
        request_id, engine = request_id_of(ticket.headers), ticket.engine
        outcome = self._outcome(ticket, request_id, seconds)
        if isinstance(outcome, RequestError):
            status, answer = outcome.status, None
            ticket.answered(ticket, partial(RawError(outcome).answer, request_id))
        else:
            status, answer = 200, outcome
            timing = answer.stopwatch.header()
            ticket.answered(ticket, partial(_ANSWER.answer, answer.body, request_id, timing))
        self._tally.add(engine.metrics, status, answer)
        if self._access_log:
            log_request(request_id.decode("ascii"), status, engine.model_id, answer)

    def _outcome(self, ticket: Ticket, request_id: bytes, seconds: float) -> Answer | RequestError:
        """The model's answer, or why there is none. A model that was replaced since still gives its own: what it lost
        when it was closed are threads."""
        engine, query_string = ticket.engine, ticket.url.partition(b"?")[2]
        try:
            if ticket.stopwatch.elapsed > seconds:
                raise late()
            answer = engine.respond_at_once(dict(ticket.headers), query_string, ticket.body, ticket.stopwatch)
        except RequestError as error:
            return error
        except Exception:
            return internal_error(request_id.decode("ascii"))
        engine.brief.took(len(ticket.body), ticket.stopwatch.processor)
        return answer
