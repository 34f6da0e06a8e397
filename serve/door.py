"""Requests that the gate would refuse, refused as soon as their head is read.

A server that is asked three times what it can answer refuses two requests for each that it answers, on the processor
that the model needs. Here, before a task is made and the application called, a refusal takes 31 us of it instead of 79,
and goodput at three times the capacity is 0.94 of the capacity instead of 0.86 (3 layers of MiniLM in int8 on one core,
16 connections; medians of 5 and of 4 rounds in turn, by hand; `make bench-overload` measures one server).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from serve.gate import Gate, full
from serve.headers import Headers, request_id_of
from serve.logs import log_request
from serve.raw import RawError
from serve.registry import Registry
from serve.tally import Tally
from serve.tokens import Tokens

if TYPE_CHECKING:
    from serve.engine import Engine

_CLASSIFY = re.compile(rb"/(?:classify|predict|models/(?P<name>[A-Za-z0-9._-]+)/classify)(?:\?[^#]*)?")


class Door:
    """Says of a request to classify whether it is refused at once, with the answer that the application would give."""

    def __init__(
        self,
        state: Mapping[str, Any],
        tally: Tally,
        tokens: Tokens | None = None,
        access_log: bool = False,
        letting_go: Callable[[], bool] = lambda: False,
    ) -> None:
        """`state` is the service's, as in `Routes`. While the worker is `letting_go` of connections, which an answer
        says, the application answers."""
        self._state = state
        self._tally = tally
        self._tokens = tokens
        self._access_log = access_log
        self._is_letting_go = letting_go
        self._refusal = RawError(full())

    @property
    def letting_go(self) -> bool:
        """Some answers end their connection, and say so."""
        return self._is_letting_go()

    @property
    def full(self) -> bool:
        """Whether `refuse` may refuse at all: asked first, of every request."""
        gate: Gate | None = self._state.get("gate")
        return gate is not None and gate.full

    def refuse(self, url: bytes, headers: Headers, default_headers: Headers) -> bytes | None:
        """The whole answer to a POST of which nothing but this is read; None: let it in, and have it answered there.

        A refusal is counted and logged as any other.
        """
        if not self.full or self.letting_go:
            return None
        engine = self.asked(url, headers)
        if engine is None:
            return None
        request_id = request_id_of(headers)
        self._tally.add(engine.metrics, 429, None)
        if self._access_log:
            log_request(request_id.decode("ascii"), 429, engine.model_id, None)
        return self._refusal.answer(request_id, default_headers)

    def asked(self, url: bytes, headers: Headers) -> Engine | None:
        """The model that a POST asks to classify; None if it asks for none, or may not."""
        found = _CLASSIFY.fullmatch(url)
        if found is None or (self._tokens and self._tokens.refusal("", headers)):
            return None
        models: Registry[Engine] = self._state["models"]
        engines, default = models.current
        return engines.get(found["name"].decode("ascii") if found["name"] else default)
