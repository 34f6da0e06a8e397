"""`asyncio.timeout` for each request, at a quarter of its cost: one timer looks after the deadlines of them all.

Two of asyncio's, one within the other, take 8 microseconds with uvloop, two of these 2 (20,000 in a row, 3 times).
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from weakref import WeakKeyDictionary

_LOOK_S = 0.02  # between two looks: by so much a deadline may be missed


class deadline:  # noqa: N801  # reads as a keyword, as `asyncio.timeout` does
    """`with deadline(15):` cancels what runs inside when 15 s are over, and raises TimeoutError in its place."""

    __slots__ = ("_cancelling", "_expired", "_seconds", "_task", "_watch", "when")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "a deadline is for a task"
        self._task, self._cancelling = task, task.cancelling()
        self._watch = _watches.get(loop) or _Watch(loop)
        self.when = loop.time() + self._seconds
        self._watch.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.remove(self)
        # Somebody else may have cancelled the task as well: then it stays cancelled (as in asyncio.timeout).
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """The time is up."""
        self._expired = True
        self._task.cancel()


class _Watch:
    """The deadlines of one event loop. It looks at them only while there are any."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: set[deadline] = set()
        self._looking = False
        _watches[loop] = self

    def add(self, each: deadline) -> None:
        self._running.add(each)
        if not self._looking:
            self._looking = True
            self._loop.call_later(_LOOK_S, self._look)

    def remove(self, each: deadline) -> None:
        self._running.discard(each)

    def _look(self) -> None:
        now = self._loop.time()
        for each in [each for each in self._running if each.when <= now]:
            self._running.discard(each)
            each.expire()
        self._looking = bool(self._running)
        if self._looking:
            self._loop.call_later(_LOOK_S, self._look)


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()
