"""Short requests to a model of a few milliseconds, answered by the event loop: no application, no task, no thread.

After each model run the processor's caches hold the model, and all code that a request passes has to come back into
them; a thread besides has to be woken, and to win Python's lock. So a request that arrived whole, in one piece with its
body, goes from the protocol to the model and back. One is answered at each turn of the loop, which reads, refuses and
says that it lives in between.

Where a thread would gain something, the application is asked as ever: when the package has two of them, when a model
run takes longer (`serve.brief`), and while anything else is in the server.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from serve.bodies import check_size
from serve.brief import Brief
from serve.door import Door
from serve.edge import internal_error
from serve.errors import RequestError
from serve.gate import Gate, late
from serve.headers import Headers, request_id_of
from serve.logs import log_request
from serve.raw import RawAnswer, RawError
from serve.registry import Registry
from serve.stopwatch import Stopwatch
from serve.tally import Tally

if TYPE_CHECKING:
    from serve.answers import Answer
    from serve.engine import Engine

Answered = Callable[["Ticket", Callable[[Headers], bytes]], None]
Model = tuple[str, Brief]  # its name, and which requests to it are short
_ANSWER = RawAnswer()


class Ticket:
    """A request under way, with all that uvicorn's protocol asks of one (its `RequestResponseCycle`)."""

    def __init__(self, model: str, url: bytes, headers: Headers, body: bytes, answered: Answered) -> None:
        """`answered` is called once, with this ticket and what makes the whole answer; not if nobody listens."""
        self.model, self.url, self.headers, self.body = model, url, headers, body
        self.answered = answered
        self.stopwatch = Stopwatch()
        self.response_complete = self.disconnected = self.more_body = False
        self.keep_alive = True
        self.message_event = self

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

    def model_for(self, url: bytes, headers: Headers) -> Model | None:
        """The model whose answer a POST with this head may get here, should its body be short and already there."""
        gate: Gate | None = self._state.get("gate")
        if gate is None or gate.inside > len(self._waiting) or self._door.letting_go:
            return None
        name, engine = self._door.asked(url, headers)
        return (name, engine.brief) if engine is not None and engine.brief.likely else None

    def take(self, model: Model, url: bytes, headers: Headers, body: bytes, answered: Answered) -> Ticket | None:
        """A ticket for a request of which `model_for` has said `model`; None: the application shall answer it."""
        gate: Gate = self._state["gate"]
        name, brief = model
        if gate.full or not brief.is_short(body):
            return None
        ticket = Ticket(name, url, headers, body, answered)
        gate.moved(1)
        self._waiting.append(ticket)
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)
        return ticket

    def _turn(self) -> None:
        """Answer the first, and have the others wait for the next turns."""
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
        request_id = request_id_of(ticket.headers)
        models: Registry[Engine] = self._state["models"]
        try:
            with models.borrow(ticket.model) as engine:
                status, answer = self._respond(ticket, engine, request_id, seconds)
        except RequestError as error:  # the model is gone since
            ticket.answered(ticket, partial(RawError(error).answer, request_id))
            return
        self._tally.add(engine.metrics, status, answer)
        if self._access_log:
            log_request(request_id.decode("ascii"), status, engine.model_id, answer)

    def _respond(self, ticket: Ticket, engine: Engine, request_id: bytes, seconds: float) -> tuple[int, Answer | None]:
        """Send the answer: its status, and what it says if it is no error."""
        try:
            if ticket.stopwatch.elapsed > seconds:
                raise late()
            check_size(ticket.body, engine.limits)
            answer = engine.respond_at_once(
                dict(ticket.headers), ticket.url.partition(b"?")[2], ticket.body, ticket.stopwatch
            )
        except RequestError as error:
            refusal = error
        except Exception:
            refusal = internal_error(request_id.decode("ascii"))
        else:
            engine.brief.took(ticket.stopwatch.worked)
            timing = answer.stopwatch.header()
            ticket.answered(ticket, partial(_ANSWER.answer, answer.body, request_id, timing))
            return 200, answer
        ticket.answered(ticket, partial(RawError(refusal).answer, request_id))
        return refusal.status, None
