"""The process above the workers: BentoML's, told to bring workers back at once, and everywhere.

BentoML looks after its workers every 10 s, and inside a container it does not replace them at all: with one worker the
server ends, with several it goes on with fewer. An orchestrator would have to end the whole server, with all that is in
flight elsewhere in it. Both are settings of its process manager, circus, but none of BentoML's own.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

import bentoml._internal.utils.circus as manager
from circus.process import DEAD_OR_ZOMBIE, UNEXISTING

from serve.board import ENV, Board
from serve.limits import drain_seconds
from serve.logs import log

_LOOK_S = 0.5  # between two looks at whether all workers live
_YOUNG_S = 10.0  # a worker that dies earlier may not have come to answer anything
_AT_ONCE = 3  # of these in a row are replaced without waiting
_LONGEST_S = 30.0


class Supervisor(manager.Arbiter):
    """BentoML's arbiter with workers that come back, and a board for them to share."""

    def __init__(self, watchers: list[Any], *args: Any, **settings: Any) -> None:
        super().__init__(watchers, *args, **{**settings, "check_delay": _LOOK_S})
        self._patience = Patience()
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
        processes = [process for watcher in self.iter_watchers() for process in watcher.processes.values()]
        ages = {process.pid: process.age() for process in processes}
        dead = {process.pid for process in processes if process.status in (DEAD_OR_ZOMBIE, UNEXISTING)}
        return super().manage_watchers() if self._patience.may_replace(ages, dead) else None


class Patience:
    """A worker that dies is replaced at once; where one after the other dies young, after 1, 2, 4 and so on to 30 s.

    Otherwise workers that cannot start, for want of memory say, would take all processor time from those that answer.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: set[int] = set()  # dead workers that have been counted
        self._in_a_row = 0
        self._not_before = 0.0

    def may_replace(self, ages: Mapping[int, float], dead: Set[int]) -> bool:
        """Whether to replace the `dead` now. `ages` are those of all workers in seconds, by process id."""
        young = {pid for pid in dead - self._seen if ages[pid] < _YOUNG_S}
        if not dead and all(age >= _YOUNG_S for age in ages.values()):
            self._in_a_row = 0
        self._in_a_row += len(young)
        if young and self._in_a_row > _AT_ONCE:
            wait_s = min(_LONGEST_S, 2.0 ** (self._in_a_row - _AT_ONCE - 1))
            self._not_before = self._clock() + wait_s
            log.warning("%d workers in a row died within %g s of their start", self._in_a_row, _YOUNG_S)
        self._seen = set(dead)
        return self._clock() >= self._not_before


def supervise() -> None:
    """Have BentoML start this supervisor instead of its own. To be called before it starts one."""
    manager.Arbiter = Supervisor  # type: ignore[misc]
