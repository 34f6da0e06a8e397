"""How many requests are in the server at once, and for how long each may stay."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from serve.deadline import deadline
from serve.errors import RequestError


class Gate:
    """Lets at most `capacity` requests in at once; each has `seconds` from there to its answer.

    One gate for each worker process, used from its event loop alone.
    """

    def __init__(self, capacity: int, seconds: float, tell: Callable[[int], None] = lambda change: None) -> None:
        """`tell` hears of each request that enters (1) and leaves (-1)."""
        self._inside = 0
        self._unread = 0  # of them, those whose body has not arrived
        self._capacity = capacity
        self.seconds = seconds
        self._tell = tell

    @property
    def inside(self) -> int:
        """Requests that are inside."""
        return self._inside

    @property
    def full(self) -> bool:
        """The next to enter is refused."""
        return self._inside >= self._capacity

    def enter(self) -> _Visit:
        """To be used as `with`. Raises RequestError: 429 at once when full, 504 when the time is up."""
        if self.full:
            raise full()
        return _Visit(self, self.seconds)

    @contextlib.contextmanager
    def unread(self) -> Iterator[bool]:
        """While a request inside waits for its body. Whether more than half of the places do so, this one included:
        then senders who stop halfway could shut out those who have sent all."""
        self._unread += 1
        try:
            yield self._unread > max(1, self._capacity // 2)
        finally:
            self._unread -= 1

    def moved(self, change: int) -> None:
        """`change` more requests are inside."""
        self._inside += change
        self._tell(change)


class _Visit:
    """One request's stay. What runs inside is cancelled when its time is up."""

    def __init__(self, gate: Gate, seconds: float) -> None:
        self._gate = gate
        self._deadline = deadline(seconds)

    def __enter__(self) -> None:
        self._deadline.__enter__()
        self._gate.moved(1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gate.moved(-1)
        try:
            self._deadline.__exit__(kind, error, trace)
        except TimeoutError:
            raise late() from None


def late() -> RequestError:
    """A 504."""
    hint = "send fewer or smaller inputs in one request"
    return RequestError(504, "timeout", "the answer was not ready in time", hint)


def full(headers: Sequence[tuple[bytes, bytes]] = ()) -> RequestError:
    """A 429, with these headers besides."""
    message = "the server has as many requests as it takes at once"
    return RequestError(429, "too_many_requests", message, "try again in a moment", [(b"retry-after", b"1"), *headers])
