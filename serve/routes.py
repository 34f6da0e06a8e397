"""The routes that we answer ourselves, outside of BentoML's layers, which cost as much time as a small model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from serve.answers import Answer
from serve.bodies import read_body
from serve.edge import EXCHANGE, App, Exchange, Receive, Scope, Send
from serve.engine import Engine
from serve.errors import RequestError
from serve.gate import Gate
from serve.logs import log_request
from serve.openapi import document, secured

_GET, _POST = ("GET", "HEAD"), ("POST",)
_CLASSIFY = ("/classify", "/predict")
_OURS = {**dict.fromkeys(_CLASSIFY, _POST), "/model": _GET, "/openapi.json": _GET}
_PAGE = (
    "favicon-dark-32x32.png",
    "favicon-light-32x32.png",
    "index.css",
    "marked.min.js",
    "swagger-initializer.js",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-ui.css",
)
_BENTOML = ("/", "/livez", "/readyz", "/healthz", "/metrics", "/schema.json", "/docs.json")

# Every path that is served, and the methods it takes.
ROUTES: dict[str, tuple[str, ...]] = {
    **_OURS,
    **dict.fromkeys(_BENTOML, _GET),
    **dict.fromkeys((f"/static_content/{name}" for name in _PAGE), _GET),
}


class Routes:
    """ASGI application around BentoML's: what costs a classification nothing is left to BentoML.

    `state` is the service's; it holds "engine" and "gate" once the model is loaded, before the first request is taken.
    """

    def __init__(self, app: App, state: Mapping[str, Any], access_log: bool = False) -> None:
        self._app = app
        self._state = state
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in _OURS:
            await self._app(scope, receive, send)
            return
        exchange: Exchange = scope[EXCHANGE]
        engine: Engine = self._state["engine"]
        if scope["path"] in _CLASSIFY:
            await self._classify(engine, exchange, scope, receive)
        elif scope["path"] == "/model":
            await exchange.answer(json.dumps(engine.describe()).encode())
        else:
            content = document(engine.describe())
            await exchange.answer(json.dumps(secured(content) if self._state.get("secured") else content).encode())

    async def _classify(self, engine: Engine, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        """Answer first and count afterwards, so that no client waits for the counting."""
        gate: Gate = self._state["gate"]
        answer: Answer | None = None
        try:
            async with gate.enter():
                headers = dict(scope["headers"])
                body = await read_body(receive, headers, engine.limits)
                answer = await engine.respond(headers, scope["query_string"], body)
                await exchange.answer(answer.body, headers=[(b"server-timing", answer.stopwatch.header())])
        except RequestError as error:
            await exchange.fail(error)
        except Exception:
            await exchange.fail_internally()
        engine.metrics.count(exchange.status, answer)
        if self._access_log:
            log_request(exchange, engine.model_id, answer)
