"""The models of one worker: opened when it starts, and followed while it runs where they can change."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from pathlib import Path

from serve import catalog, locate, shared_state
from serve.admin import Admin
from serve.catalog import MAX_MODELS, Catalog, packages_in, read_catalog
from serve.control import Control
from serve.engine import Engine, check_servable
from serve.errors import LimbeckError
from serve.follow import Follower
from serve.limits import Limits
from serve.metrics import ServedMetrics
from serve.package import load_package
from serve.predictor import Predictor
from serve.registry import Registry
from serve.rollout import Rollout, begin
from serve.shared_state import SharedState
from serve.watch import Watcher


def check_models(environ: MutableMapping[str, str] = os.environ) -> None:
    """Once, before the first worker: refuse what cannot be served, and have all workers serve the same packages.

    Where they can change while the server runs, the workers share a folder, which is removed when this process ends.
    Raises UserError.
    """
    control, named = Control.from_env(environ), read_catalog(environ)
    packages = named.packages()
    for package in packages.values():
        check_servable(package)
    if control.changeable:
        if control.watch and control.models_dir is not None:
            named.targets.update(_watched(control.models_dir, named))
        folder = Path(tempfile.mkdtemp(prefix="limbeck-state-"))
        atexit.register(_remove, folder, os.getpid())
        begin(SharedState.create(folder), named)
        environ[shared_state.ENV] = str(folder)
    else:
        environ.pop(shared_state.ENV, None)
    environ[locate.ENV] = str(packages.pop(named.default))
    environ[catalog.ENV] = ",".join(f"{name}={path}" for name, path in packages.items())


class Models:
    """What a worker serves: `registry`, and `admin` where requests may change it."""

    def __init__(self, limits: Limits, changed: Callable[[Engine], None], control: Control | None = None) -> None:
        """`changed` hears of the default's engine, now and whenever it has changed. Raises UserError."""
        self.control = control or Control.from_env()
        self.admin: Admin | None = None
        self._rollout: Rollout | None = None
        self._follower: Follower | None = None
        self._watcher: Watcher | None = None
        self._tell = changed
        self._metrics = ServedMetrics()
        if folder := os.environ.get(shared_state.ENV):
            shared = SharedState(Path(folder))
            self._follower = Follower(shared, lambda copy, origin: open_engine(copy, limits, origin), self._changed)
            self.registry = self._follower.registry
            self._rollout = Rollout(shared, self.control.models_dir)
            if self.control.token_hash is not None:
                self.admin = Admin(self.control, self._rollout, limits)
        else:
            named = read_catalog()
            engines = {name: open_engine(path, limits) for name, path in named.packages().items()}
            self.registry = Registry(engines, named.default)
        self._changed()
        settle()

    def start(self) -> None:
        """Follow what changes from now on."""
        if self._follower is not None and self._rollout is not None:
            self._follower.start()
            if self.control.watch and self.control.models_dir is not None:
                self._watcher = Watcher(self.control.models_dir, self._rollout, self._follower.watch_lock)
                self._watcher.start()

    def _changed(self) -> None:
        self._tell(self.default)
        self._metrics.show({name: engine.model_id for name, engine in self.registry.current[0].items()})

    @property
    def default(self) -> Engine:
        """The engine of what names no model."""
        engines, default = self.registry.current
        return engines[default]

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
        if self._follower is not None:
            self._follower.close()
        else:
            self.registry.close()


def _watched(folder: Path, named: Catalog) -> dict[str, Path]:
    """The packages of a watched folder that are not named already; one that cannot be served keeps no other from it."""
    found: dict[str, Path] = {}
    for name, path in packages_in(folder).items():
        if name in named.targets or len(named.targets) + len(found) >= MAX_MODELS:
            continue
        try:
            check_servable(path)
            found[name] = path
        except LimbeckError as error:
            print(f"warning: {name} in the watched folder is not served: {error.message}", file=sys.stderr)
    return found


def settle() -> None:
    """Exempt what is loaded from garbage collection. Only before the first request.

    A request under way would be exempted with its garbage, and so would the model be that it holds, for good.
    """
    gc.collect()
    gc.freeze()


def open_engine(path: Path, limits: Limits, origin: Path | None = None) -> Engine:
    """The package at `path`, ready to answer. `origin` names it in errors, where `path` is a copy. Raises UserError."""
    package = load_package(path)
    engine = Engine(Predictor(replace(package, path=origin or path)), limits)
    engine.warm_up()
    return engine


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not a child that was forked
        shutil.rmtree(folder, ignore_errors=True)
