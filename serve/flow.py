"""When a connection is read from."""

from __future__ import annotations

import asyncio
from collections.abc import Sized

from uvicorn.protocols.http.flow_control import FlowControl


class InTurn(FlowControl):
    """Reads no more from a connection while requests that it has sent wait for their turn.

    uvicorn reads on with each answer, and each time hundreds of small requests can come: one client that sent them
    without end filled 270 MB in 12 s.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Once none waits, what is still to come may be the body of the request that is being answered."""
        if not self._waiting:
            super().resume_reading()
