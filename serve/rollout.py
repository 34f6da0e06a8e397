"""Changes of what a server serves, by all of its workers or by none.

First every worker loads the new beside the old. Only when all have it do they change over; if one cannot, the old stays
everywhere. A request is at any time answered by one model or the other, whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from serve.catalog import MAX_MODELS, Catalog, is_name
from serve.errors import UserError, did_you_mean
from serve.locate import find_package
from serve.shared_state import Progress, Selection, SharedState, State

_LOOK_S = 0.02
_KEPT = "what was served before is served on"


@dataclass(frozen=True)
class Patience:
    """Seconds that a change waits: for its turn, for all workers to load, for all to change over."""

    turn_s: float = 5
    load_s: float = 60
    change_s: float = 10


@dataclass(frozen=True)
class Outcome:
    """`following` of `workers` living workers serve `selection` by now, the others soon."""

    selection: Selection
    following: int
    workers: int


def begin(shared: SharedState, catalog: Catalog) -> None:
    """The state of a server that starts. Raises UserError for a package that cannot be served."""
    models = {
        name: shared.take_in(name, catalog.targets[name], package, 1) for name, package in catalog.packages().items()
    }
    shared.write(State(version=1, serving=Selection(default=catalog.default, models=models)))


class Rollout:
    """Changes the shared state, from whichever worker is asked to. Every method raises UserError where nothing changed.

    `models_dir` is the only folder that packages are taken from, besides those that the server was started with.
    """

    def __init__(self, shared: SharedState, models_dir: Path | None = None, patience: Patience | None = None) -> None:
        self._shared = shared
        self._models_dir = models_dir
        self._patience = patience or Patience()

    @property
    def selection(self) -> Selection:
        """What is served now."""
        return self._shared.read().serving

    def progress(self) -> Outcome:
        """What is served now, and by how many workers: one that starts may not be so far yet."""
        state = self._shared.read()
        workers = self._shared.workers()
        return Outcome(state.serving, _following(workers, state.version), len(workers))

    def load(self, name: str, folder: str | None = None) -> Outcome:
        """Serve the package or run `folder` of the models' folder as `name`.

        Without `folder`, what `name` was loaded from is read again.
        """
        if not is_name(name):
            raise UserError(
                f"{name[:64]!r} is no name for a model",
                "expected at most 64 letters, digits, '.', '_' and '-', the first a letter or digit",
            )

        def change(state: State) -> Selection:
            target = self._known(state.serving, name) if folder is None else self._inside(folder)
            models = dict(state.serving.models)
            models[name] = self._shared.take_in(name, target, find_package(target), state.version + 1)
            if len(models) > MAX_MODELS:
                raise UserError(
                    f"{MAX_MODELS} models are served, which is as many as there may be",
                    "unload one: DELETE /admin/models/NAME",
                )
            return Selection(default=state.serving.default, models=models)

        return self._change(change)

    def unload(self, name: str) -> Outcome:
        """Serve `name` no longer."""

        def change(state: State) -> Selection:
            _check_known(state.serving, name)
            if name == state.serving.default:
                hint = 'make another model the default first: PUT /admin/default {"model": "NAME"}'
                raise UserError(f"'{name}' is the default", hint)
            models = {other: copy for other, copy in state.serving.models.items() if other != name}
            return Selection(default=state.serving.default, models=models)

        return self._change(change)

    def set_default(self, name: str) -> Outcome:
        """Have `name` answer what names no model."""

        def change(state: State) -> Selection:
            _check_known(state.serving, name)
            return Selection(default=name, models=state.serving.models)

        return self._change(change)

    def _known(self, serving: Selection, name: str) -> Path:
        _check_known(serving, name)
        return Path(serving.models[name].target)

    def _inside(self, folder: str) -> Path:
        """The folder of that name in the models' folder, which no link leads out of."""
        if self._models_dir is None:
            raise UserError("no folder of models is configured", "start the server with LIMBECK_MODELS_DIR (--models)")
        there = sorted(path.name for path in self._models_dir.iterdir() if path.is_dir() and is_name(path.name))
        if folder not in there:
            raise UserError(f"the folder of models has no {folder[:64]!r}", did_you_mean(folder[:64], there))
        target = (self._models_dir / folder).resolve()
        if self._models_dir.resolve() not in target.parents:
            raise UserError(f"{folder!r} is a link that leads out of the folder of models", "copy the package into it")
        return target

    def _change(self, change: Callable[[State], Selection]) -> Outcome:
        with self._shared.changing(self._patience.turn_s):
            before = self._shared.read()
            try:
                wanted = change(before)
            except BaseException:
                self._shared.sweep(before.serving)
                raise
            self._shared.write(State(version=before.version + 1, serving=before.serving, candidate=wanted))
            try:
                self._await_loaded(before.version + 1)
            except BaseException:
                self._shared.write(State(version=before.version + 2, serving=before.serving))
                self._shared.sweep(before.serving)
                raise
            self._shared.write(State(version=before.version + 2, serving=wanted))
            following, workers = self._await_changed(before.version + 2)
            self._shared.sweep(wanted)
            return Outcome(wanted, following, workers)

    def _await_loaded(self, version: int) -> None:
        deadline = time.monotonic() + self._patience.load_s
        while True:
            workers = self._shared.workers()
            for worker in workers:
                if worker is not None and worker.version == version and worker.problem is not None:
                    raise UserError(f"a worker cannot load it: {worker.problem}", _KEPT)
            if all(worker is not None and worker.version == version for worker in workers):
                return
            if time.monotonic() > deadline:
                raise UserError(f"not all workers have loaded it within {self._patience.load_s:g} s", _KEPT)
            time.sleep(_LOOK_S)

    def _await_changed(self, version: int) -> tuple[int, int]:
        """How many workers serve `version`, and how many there are."""
        deadline = time.monotonic() + self._patience.change_s
        while True:
            workers = self._shared.workers()
            done = _following(workers, version)
            if done == len(workers) or time.monotonic() > deadline:
                return done, len(workers)
            time.sleep(_LOOK_S)


def _following(workers: Sequence[Progress | None], version: int) -> int:
    return sum(worker is not None and worker.version == version and not worker.problem for worker in workers)


def _check_known(serving: Selection, name: str) -> None:
    if name not in serving.models:
        raise UserError("no model is served under this name", did_you_mean(name[:64], serving.models))
