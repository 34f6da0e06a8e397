"""A run in several processes: the first does all of it, the others train with it and wait in between.

The first announces each stage and how it ended through a store, where nothing times out. The others do nothing on their
own: they read the recipe and the data when there is something to train, and take what is done already from what they
are told. So all agree, whatever lies in the run directory, which they must see as well.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from compress.console import Console
from compress.recipe import TEACHER, Recipe, Student, Teacher
from compress.rundir import Announce, Result, RunDir
from compress.stages.context import RunContext
from compress.stages.training import train_models
from serve.errors import UserError
from train.data import load_data
from train.processes import check_processes, join, world

_BEGUN, _END = ":begun", ":end"
_LOOK_SECONDS = 0.2


class EndedError(Exception):
    """The first process has ended: nothing is left to do."""


@contextmanager
def leading(recipe: Recipe) -> Iterator[Announce | None]:
    """For a run by the first of several processes: gives what tells the others. None where there are no others."""
    here = world()
    models: list[Teacher | Student] = [recipe.teacher, *recipe.students]
    for model in models:
        distill = model.distill if isinstance(model, Student) else None
        check_processes(getattr(model, "name", TEACHER), model.fit, distill, here.size)
    if here.size == 1:
        yield None
        return
    store = join()

    def announce(stage: str, state: str, content: Mapping[str, Any]) -> None:
        store.set(f"{stage}:{state}", json.dumps(dict(content)))
        store.set(stage, state)
        store.set(_BEGUN, "")

    try:
        yield announce
        dist.destroy_process_group()
    finally:
        store.set(_END, "")


def follow(recipe: Recipe, folder: Path) -> None:
    """What every process but the first does in a run: train what the first trains, and return when that has ended."""
    store = join()
    try:
        _wait(store, _BEGUN)
        data = load_data(recipe.data, recipe.seed, recipe.task)
        train_models(RunContext(recipe, data, _FollowedRunDir(folder, store), Console(quiet=True)))
        dist.destroy_process_group()
        _wait(store, _END)
    except EndedError:
        pass


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
