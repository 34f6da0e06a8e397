"""A run in several processes: the first does all of it, the others train with it and wait in between.

The first announces each stage and how it ended through a store, where nothing times out. The others do nothing on their
own: they read the recipe and the data when there is something to train, and take what is done already from what they
are told. So all agree, whatever lies in the run directory, which they must see as well.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from compress.console import Console
from compress.recipe import Recipe
from compress.rundir import Announce, Result, RunDir
from compress.stages.context import RunContext
from compress.stages.training import train_models
from compress.teachers import all_teachers
from serve.errors import UserError
from train.data import load_data
from train.processes import check_processes, join, world
from train.shard import check_sharded

_BEGUN, _END = ":begun", ":end"
_LOOK_SECONDS = 0.2
_ENDS_SECONDS = 3.0
# What gloo says, which raises nothing of its own; nccl raises torch's DistError.
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting")
_GOES_ON = (
    "what it said stands above or in its own log; if it said nothing, it was killed, or the machine ran out of memory. "
    "The same command goes on from the last whole epoch"
)


class EndedError(Exception):
    """The first process has ended: nothing is left to do."""


class LostError(UserError):
    """A process of several is gone, so that the others cannot go on either."""

    @property
    def is_told_here(self) -> bool:
        """Whether this process says so: of those that are left, not all need to."""
        return world().rank <= 1 or world().local_rank == 0


class _ToldToEnd(BaseException):
    """SIGTERM. No Exception, so that nobody between takes it for an error of theirs."""


def check_together(recipe: Recipe, shard: bool, size: int | None = None) -> None:
    """Raise UserError for what `size` processes cannot do together; by default as many as there are."""
    size = world().size if size is None else size
    if shard and size == 1:
        raise UserError(
            "--shard splits models over several processes, but there is one",
            "start more: limbeck run RECIPE --shard --processes 2",
        )
    for name, teacher in all_teachers(recipe).items():
        check_processes(name, teacher.fit, None, size)
        if shard:
            check_sharded(name, teacher.fit, None)
    for student in recipe.students:
        check_processes(student.name, student.fit, student.distill, size)
        if shard:
            check_sharded(student.name, student.fit, student.distill)


@contextmanager
def leading(recipe: Recipe, shard: bool = False) -> Iterator[Announce | None]:
    """For a run by the first of several processes: gives what tells the others. None where there are no others."""
    check_together(recipe, shard)
    if world().size == 1:
        yield None
        return
    store = join()

    def announce(stage: str, state: str, content: Mapping[str, Any]) -> None:
        store.set(f"{stage}:{state}", json.dumps(dict(content)))
        store.set(stage, state)
        store.set(_BEGUN, "")

    try:
        with _ending_when_told():
            yield announce
            dist.destroy_process_group()
    except _ToldToEnd:
        raise LostError(
            "this process was told to end: another of the run is gone, or somebody stopped it", _GOES_ON
        ) from None
    except RuntimeError as error:
        if not _lost(error):
            raise
        raise LostError("another process of the run ended while this one waited for it", _GOES_ON) from None
    finally:
        with suppress(RuntimeError):  # whoever kept the store may be what is gone
            store.set(_END, "")


def follow(recipe: Recipe, folder: Path, shard: bool = False) -> None:
    """What every process but the first does in a run: train what the first trains, and return when that has ended.

    Whatever goes wrong for the first as well is told by that alone. Raises LostError where that is gone without a word.
    """
    store = join()
    try:
        with _ending_when_told():
            _wait(store, _BEGUN)
            data = load_data(recipe.data, recipe.seed, recipe.task)
            train_models(RunContext(recipe, data, _FollowedRunDir(folder, store), Console(quiet=True), shard=shard))
            dist.destroy_process_group()
            with suppress(RuntimeError):  # the first may be quick to leave, and the store with it
                _wait(store, _END)
    except EndedError:
        pass
    except (Exception, _ToldToEnd) as error:
        if _has_ended(store):
            return
        if isinstance(error, _ToldToEnd) or (isinstance(error, RuntimeError) and _lost(error)):
            raise LostError("the first process of the run, or another, is gone without a word", _GOES_ON) from None
        raise


def _has_ended(store: Store) -> bool:
    """Whether the first process says that it ends too, at once or within some seconds."""
    until = time.monotonic() + _ENDS_SECONDS
    try:
        while not store.check([_END]):
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK_SECONDS)
    except RuntimeError:  # it kept the store itself, which is gone with it
        return False
    return True


def _lost(error: RuntimeError) -> bool:
    """Whether it is what torch says where another process is gone."""
    return isinstance(error, dist.DistError) or any(words in str(error) for words in _GONE)


@contextmanager
def _ending_when_told() -> Iterator[None]:
    """SIGTERM, which launchers send to all others when one process is gone, raises _ToldToEnd meanwhile.

    Once anything has gone wrong it is ignored, so that what it was can still be said.
    """
    if threading.current_thread() is not threading.main_thread():  # where no signal can be handled
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _ToldToEnd

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    signal.signal(signal.SIGTERM, before)


class _FollowedRunDir(RunDir):
    """The run directory as the other processes see it: they write nothing there."""

    def __init__(self, path: Path, store: Store) -> None:
        self.path, self._store = path, store
        self._stages: dict[str, Any] = {}

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        result_type: type[Result],
        work: Callable[[Path], Result],
        output: str | None = None,
    ) -> Result:
        _wait(self._store, name)
        if self._store.get(name) != b"unchanged" and self._store.check([f"{name}:started"]):
            partial = Path(json.loads(self._store.get(f"{name}:started"))["partial"])
            if not partial.parent.is_dir():
                raise UserError(
                    f"process {world().rank} does not see the run directory {self.path}",
                    "put it on storage that all machines share, with --out",
                )
            work(partial)
            _wait(self._store, f"{name}:done")
        state = self._store.get(name).decode()
        self._stages[name] = json.loads(self._store.get(f"{name}:{state}"))
        return result_type.model_validate(self._stages[name]["result"])


def _wait(store: Store, key: str) -> None:
    """Until the first process has set `key`. Raises EndedError when it ends before."""
    while not store.check([key]):
        if store.check([_END]):
            raise EndedError
        time.sleep(_LOOK_SECONDS)
