"""Requests that the event loop answers itself, since a thread would cost more than it gives.

To ask a thread and to hear of it took 0.07 ms of a request, beside a model run of 1.3 ms (3 layers of MiniLM in int8,
1 core, 3 rounds of 600 requests in turn). A thread lets the loop read, refuse and say that it lives meanwhile, and a
second one shares the work: so it is asked wherever one of these could be missed for longer than a few milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

MOST_S = 0.005  # that the last answer took
MOST_QUOTES = 8  # of a body: one text and top_k have 6; 64 short texts would hold the loop for 64 times as long
MOST_BYTES = 4096  # of a body: a text of that length takes some times longer than a short one, an image any time


class Brief:
    """Remembers how long answers take, and says which one need not wait for a thread."""

    def __init__(self, possible: bool) -> None:
        """Not `possible`: never."""
        self._possible = possible
        self._took_s = float("inf")

    def took(self, seconds: float) -> None:
        """The time of an answer, from its request's bytes to its own."""
        self._took_s = seconds

    async def alone(self, body: bytes, alone: Callable[[], bool]) -> bool:
        """Whether this request is brief, and still `alone` after what has arrived meanwhile was read."""
        if not self._possible or self._took_s > MOST_S or len(body) > MOST_BYTES or body.count(b'"') > MOST_QUOTES:
            return False
        if not alone():
            return False
        await asyncio.sleep(0)  # or requests that came together would each be alone in its turn, and none be refused
        return alone()
