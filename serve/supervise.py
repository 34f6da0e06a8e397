"""The process above the workers: BentoML's, told to bring workers back at once, and everywhere.

BentoML looks after its workers every 10 s, and inside a container it does not replace them at all: with one worker the
server ends, with several it goes on with fewer. An orchestrator would have to end the whole server, with all that is in
flight elsewhere in it. Both are settings of its process manager, circus, but none of BentoML's own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bentoml._internal.utils.circus as manager

from serve.board import ENV, Board
from serve.limits import drain_seconds

_LOOK_S = 0.5  # between two looks at whether all workers live


class Supervisor(manager.Arbiter):
    """BentoML's arbiter with workers that come back, and a board for them to share."""

    def __init__(self, watchers: list[Any], *args: Any, **settings: Any) -> None:
        super().__init__(watchers, *args, **{**settings, "check_delay": _LOOK_S})
        self._scratch = tempfile.TemporaryDirectory(prefix="limbeck-board-")
        for number, watcher in enumerate(watchers):
            watcher.respawn = True
            if watcher.numprocesses > 1:
                board = Path(self._scratch.name) / str(number)
                Board.create(board, watcher.numprocesses)
                watcher.env[ENV] = str(board)

    def start(self, cb: Callable[[Any], Any] | None = None) -> None:
        try:
            super().start(cb)
        finally:
            self._scratch.cleanup()

    def stop(self) -> Any:
        """End the workers. Once they have drained, the listener is closed here too: nobody waits in its queue."""
        self.loop.call_later(drain_seconds(), self.sockets.close_all)
        return super().stop()

    def manage_watchers(self) -> Any:
        """Look after the workers, but not while circus starts or ends them, which it would report as a conflict."""
        if self._exclusive_running_command is not None or self._restarting:
            return None
        return super().manage_watchers()


def supervise() -> None:
    """Have BentoML start this supervisor instead of its own. To be called before it starts one."""
    manager.Arbiter = Supervisor  # type: ignore[misc]
