"""A folder of packages that is watched: what appears in it is served, and no longer when it is gone."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

from serve.catalog import packages_in
from serve.errors import LimbeckError
from serve.logs import log
from serve.package import read_manifest
from serve.rollout import Rollout

_LOOK_S = 1.0
Signature = tuple[tuple[str, int, int, int], ...]  # name, inode, size and time of each file


class Watcher:
    """Looks from a thread. Of all workers one does, and another when that one has died."""

    def __init__(self, folder: Path, rollout: Rollout, lock: Path, look_s: float = _LOOK_S) -> None:
        """`lock` is a file that only one watcher can hold."""
        self._folder = folder
        self._rollout = rollout
        self._lock = lock
        self._look_s = look_s
        self._seen: dict[str, Signature] = {}  # at the last look
        self._tried: dict[str, Signature] = {}  # what was loaded, or could not be
        self._kept: set[str] = set()  # gone from the folder, and could not be unloaded
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch models", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def adopt(self) -> None:
        """What is served just as it lies in the folder needs no loading."""
        served = self._rollout.selection.models
        for name, signature in self._signatures().items():
            if name in self._own() and read_manifest(self._folder / name).id == served[name].id:
                self._tried[name] = signature

    def look(self) -> None:
        """Load what is new or has changed, and has then been left alone from one look to the next."""
        found = self._signatures()
        for name, signature in sorted(found.items()):
            if self._seen.get(name) == signature and self._tried.get(name) != signature:
                self._tried[name] = signature
                self._load(name)
        for name in sorted(self._own() - found.keys() - self._seen.keys() - self._kept):  # and not only for a moment
            self._unload(name)
        self._kept -= found.keys()
        self._seen = found

    def _signatures(self) -> dict[str, Signature]:
        signatures = {name: _signature(path) for name, path in packages_in(self._folder).items()}
        return {name: signature for name, signature in signatures.items() if signature is not None}

    def _own(self) -> set[str]:
        """Names whose models came from the folder."""
        models = self._rollout.selection.models
        return {name for name, copy in models.items() if Path(copy.target) == self._folder / name}

    def _load(self, name: str) -> None:
        if name in self._rollout.selection.models and name not in self._own():
            log.error("%s in the watched folder is not served: another model has that name", name)
            return
        try:
            outcome = self._rollout.load(name, name)
        except LimbeckError as error:
            log.error("%s in the watched folder is not served: %s (%s)", name, error.message, error.hint)
        else:
            log.info("%s from the watched folder is served: model %s", name, outcome.selection.models[name].id)

    def _unload(self, name: str) -> None:
        self._tried.pop(name, None)
        try:
            self._rollout.unload(name)
        except LimbeckError as error:
            self._kept.add(name)
            log.error("%s is gone from the watched folder, and served on: %s", name, error.message)
        else:
            log.info("%s is gone from the watched folder, and no longer served", name)

    def _watch(self) -> None:
        with self._lock.open("w") as file:
            while not self._ended.wait(self._look_s):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:  # another worker looks
                    continue
            self.adopt()
            while not self._ended.wait(self._look_s):
                try:
                    self.look()
                except Exception:
                    log.exception("the watched folder cannot be looked at")


def _signature(folder: Path) -> Signature | None:
    """None: something in it has just gone."""
    try:
        states = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
    except OSError:
        return None
    return tuple((name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states)
