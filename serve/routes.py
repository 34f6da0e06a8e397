"""The routes that we answer ourselves, ahead of BentoML's own, which cost more for each request."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from typing import Any

from serve.bodies import read_body
from serve.edge import EXCHANGE, App, Exchange, Receive, Scope, Send
from serve.engine import Engine
from serve.errors import RequestError
from serve.openapi import document

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
    """ASGI middleware inside BentoML's metrics, time limit and request limit.

    `state` is the service's; it holds "engine" once the model is loaded, before the first request is taken.
    """

    def __init__(self, app: App, state: MutableMapping[str, Any]) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in _OURS:
            await self._app(scope, receive, send)
            return
        exchange: Exchange = scope[EXCHANGE]
        engine: Engine = self._state["engine"]
        # Nothing may be raised from here: BentoML's time limit would leave the client waiting for it to run out.
        try:
            if scope["path"] in _CLASSIFY:
                body = await _classify(engine, scope, receive)
            elif scope["path"] == "/model":
                body = json.dumps(engine.describe()).encode()
            else:
                body = json.dumps(document(engine.describe())).encode()
        except RequestError as error:
            await exchange.fail(send, error)
        except Exception:
            await exchange.fail_internally(send)
        else:
            await exchange.answer(send, body)


async def _classify(engine: Engine, scope: Scope, receive: Receive) -> bytes:
    headers = dict(scope["headers"])
    body = await read_body(receive, headers, engine.limits)
    return await engine.respond(headers, scope["query_string"], body)
