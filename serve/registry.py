"""The models that a worker serves, by name: borrowed by requests, exchanged all at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Generic, Protocol, TypeVar

from serve.errors import RequestError, did_you_mean
from serve.memory import release_memory


class Closable(Protocol):
    """What a registry asks of an engine."""

    def close(self) -> None:
        """Free it. Called once, when no request uses it any more."""


_RELEASE_S = 1.0
E = TypeVar("E", bound=Closable)


class Registry(Generic[E]):
    """Engines by name, one of them the default.

    A request ends on the engine that it began with; one that was replaced is closed when its last request has ended.
    Safe to use from several threads.
    """

    def __init__(self, engines: Mapping[str, E], default: str) -> None:
        self._lock = threading.Lock()
        self._users: dict[int, int] = {}  # requests under way by id() of their engine
        self._retired: dict[int, E] = {}  # replaced, and still in use
        self._set(engines, default)

    def _set(self, engines: Mapping[str, E], default: str) -> None:
        if default not in engines:
            raise ValueError(f"the default {default!r} is none of {sorted(engines)}")
        self._current = dict(engines), default

    @property
    def current(self) -> tuple[Mapping[str, E], str]:
        """What is served now, by name, and the name of the default."""
        return self._current

    @contextlib.contextmanager
    def borrow(self, name: str | None = None) -> Iterator[E]:
        """The engine of that name, else the default, for as long as the block runs. Raises RequestError 404."""
        with self._lock:
            engines, default = self._current
            engine = engines.get(default if name is None else name)
            if engine is not None:
                self._users[id(engine)] = self._users.get(id(engine), 0) + 1
        if engine is None:
            hint = did_you_mean(str(name)[:64], engines)
            raise RequestError(404, "unknown_model", "no model is served under this name", hint)
        try:
            yield engine
        finally:
            self._give_back(engine)

    def swap(self, engines: Mapping[str, E], default: str) -> None:
        """From now on these are served. Those that are left out are closed, at once or after their last request."""
        with self._lock:
            before = {id(engine): engine for engine in self._current[0].values()}
            self._set(engines, default)
            kept = {id(engine) for engine in engines.values()}
            gone = {key: engine for key, engine in before.items() if key not in kept}
            self._retired.update({key: engine for key, engine in gone.items() if key in self._users})
            idle = [engine for key, engine in gone.items() if key not in self._users]
        for engine in idle:
            _close(engine)

    def close(self) -> None:
        """Close every engine, whoever uses it."""
        with self._lock:
            engines = {id(engine): engine for engine in (*self._current[0].values(), *self._retired.values())}
            self._retired = {}
        for engine in engines.values():
            engine.close()

    def _give_back(self, engine: E) -> None:
        with self._lock:
            self._users[id(engine)] -= 1
            if self._users[id(engine)]:
                return
            del self._users[id(engine)]
            retired = self._retired.pop(id(engine), None)
        if retired is not None:
            _close(retired)


def _close(engine: Closable) -> None:
    """Close it elsewhere: it waits for its threads, and the caller may be the event loop."""
    threading.Thread(target=_free, args=([engine],), name="close engine", daemon=True).start()


def _free(engines: list[Closable]) -> None:
    engines.pop().close()
    later = threading.Timer(_RELEASE_S, release_memory)  # by when nothing refers to it any more
    later.daemon = True
    later.start()
