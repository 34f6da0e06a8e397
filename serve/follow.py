"""One worker follows the shared state: it loads what shall be served, and changes over when all can."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from serve.engine import Engine
from serve.errors import LimbeckError
from serve.logs import log
from serve.registry import Registry
from serve.shared_state import Selection, SharedState

OpenEngine = Callable[[Path, Path], Engine]  # the copy of a package, and where it came from
_LOOK_S = 0.05  # a look at an unchanged state takes some 10 us


class Follower:
    """Keeps `registry` as the state says, from a thread of its own."""

    def __init__(
        self, shared: SharedState, open_engine: OpenEngine, changed: Callable[[], None] = lambda: None
    ) -> None:
        """Loads what is served now. `changed` is called after each change. Raises UserError if that cannot be done."""
        self._changed = changed
        self._shared = shared
        self._open = open_engine
        self._held: dict[str, Engine] = {}  # by the folder of the copy: what is served, and what was loaded to be
        self._registration = shared.register()  # first, so that what changes from now on waits for this worker
        self._stamp = (0, 0)
        self._serving = shared.read().serving
        self._open_all(self._serving)
        self.registry = Registry(self._by_name(self._serving), self._serving.default)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow models", daemon=True)

    @property
    def watch_lock(self) -> Path:
        """A file for the one worker that watches a folder of models."""
        return self._shared.folder / "watch.lock"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Follow no more, and close all engines."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._registration.close()
        self.registry.close()

    def look(self) -> None:
        """Do what the state asks for, if it has changed, and report it."""
        stamp = self._shared.stamp()
        if stamp == self._stamp:
            return
        state = self._shared.read()
        problem = None
        try:
            self._change_over(state.serving)
            self._keep_only(state.serving, state.candidate)
            if state.candidate is not None:
                self._open_all(state.candidate)
        except LimbeckError as error:
            problem = error.message
        except Exception:
            log.exception("version %s of the models cannot be followed", state.version)
            problem = "failed for a reason that the server's log has"
        self._stamp = stamp
        self._registration.report(state.version, problem)

    def _follow(self) -> None:
        while not self._ended.wait(_LOOK_S):
            try:
                self.look()
            except Exception:  # the folder is gone, or the disk is full: serve on, and try again
                log.exception("the state of the models cannot be read")
                self._ended.wait(1)

    def _open_all(self, wanted: Selection) -> None:
        for copy in wanted.models.values():
            if copy.folder not in self._held:
                self._held[copy.folder] = self._open(self._shared.path(copy.folder), Path(copy.target))

    def _change_over(self, wanted: Selection) -> None:
        if wanted == self._serving:
            return
        self._open_all(wanted)  # all of it is here already, unless this worker has missed a version
        self.registry.swap(self._by_name(wanted), wanted.default)
        for copy in self._serving.models.values():
            if copy not in wanted.models.values():
                del self._held[copy.folder]  # the registry closes it after its last request
        self._serving = wanted
        self._changed()

    def _keep_only(self, *wanted: Selection | None) -> None:
        """Close what was loaded to be served, and was not."""
        folders = {copy.folder for selection in wanted if selection for copy in selection.models.values()}
        for folder in self._held.keys() - folders:
            self._held.pop(folder).close()

    def _by_name(self, selection: Selection) -> dict[str, Engine]:
        return {name: self._held[copy.folder] for name, copy in selection.models.items()}
