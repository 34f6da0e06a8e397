"""The routes that we answer ourselves, outside of BentoML's layers, which cost as much time as a small model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serve import playground
from serve.admin import admin_methods
from serve.answers import Answer
from serve.bodies import read_body
from serve.catalog import is_name
from serve.edge import EXCHANGE, App, Exchange, Receive, Scope, Send
from serve.engine import Engine
from serve.errors import RequestError
from serve.gate import Gate
from serve.logs import log_request
from serve.openapi import secured
from serve.openapi_models import whole_document
from serve.registry import Registry
from serve.tally import Tally
from serve.tokens import ADMIN

_GET, _POST = ("GET", "HEAD"), ("POST",)
_CLASSIFY = ("/classify", "/predict")
_OURS = {**dict.fromkeys(_CLASSIFY, _POST), "/model": _GET, "/models": _GET, "/openapi.json": _GET}
_MODEL = re.compile(r"/models/(?P<name>[^/]+?)(?P<what>/classify|/report)?")
_BENTOML = ("/livez", "/readyz", "/healthz", "/metrics", "/schema.json")
_PAGE = (*playground.ADDRESSES, playground.REPORT_ADDRESS)

# Every path that is served whatever the models are called, and the methods it takes. Without the playground, not _PAGE.
ROUTES: dict[str, tuple[str, ...]] = {
    **_OURS,
    **dict.fromkeys(_BENTOML, _GET),
    **dict.fromkeys(_PAGE, _GET),
}


class Addresses(Mapping[str, Sequence[str]]):
    """ROUTES, an address for each name that a model may have, and with `admin` those of admin requests."""

    def __init__(self, admin: bool, page: bool = True) -> None:
        """`page` is whether the playground and the reports are served."""
        self._admin = admin
        self._page = page
        self._always = {path: methods for path, methods in ROUTES.items() if page or path not in _PAGE}

    def __getitem__(self, path: str) -> Sequence[str]:
        if path in self._always:
            return self._always[path]
        methods = admin_methods(path) if self._admin and path.startswith(ADMIN) else None
        if methods is None and (found := _MODEL.fullmatch(path)) and is_name(found["name"]):
            methods = _POST if found["what"] == _CLASSIFY[0] else _GET
            if found["what"] == playground.REPORT_ADDRESS and not self._page:
                methods = None
        if methods is None:
            raise KeyError(path)
        return methods

    def __iter__(self) -> Iterator[str]:
        return iter(self._always)

    def __len__(self) -> int:
        return len(self._always)


class Routes:
    """ASGI application around BentoML's: what costs a classification nothing is left to BentoML.

    `state` is the service's; it holds "models", "gate" and perhaps "admin" once the models are loaded, before the first
    request is taken.
    """

    def __init__(self, app: App, state: Mapping[str, Any], access_log: bool = False, page: bool = True) -> None:
        """`page` is whether the playground and the reports are served."""
        self._app = app
        self._state = state
        self._page = page
        self._access_log = access_log
        self.tally = Tally()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path == "/metrics":
            self.tally.flush()
        if path in _CLASSIFY:
            await self._classify(None, scope[EXCHANGE], scope, receive)
        elif path in playground.ADDRESSES:
            await playground.send_page(scope[EXCHANGE], scope)
        elif path in _OURS or path == playground.REPORT_ADDRESS or path.startswith(("/models/", ADMIN)):
            await self._answer(scope[EXCHANGE], scope, receive)
        else:
            await self._app(scope, receive, send)
            if scope["type"] == "lifespan":  # the worker ends
                self.tally.flush()

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        models: Registry[Engine] = self._state["models"]
        path = scope["path"]
        if path.startswith(ADMIN):
            await self._state["admin"](exchange, scope, receive)
        elif path == "/models":
            await exchange.answer(json.dumps(_listed(models)).encode())
        elif path == "/openapi.json":
            engines, default = models.current
            described = {name: engine.describe() for name, engine in engines.items()}
            content = whole_document(described, default, "admin" in self._state, self._page)
            await exchange.answer(json.dumps(secured(content) if self._state.get("secured") else content).encode())
        else:
            found = _MODEL.fullmatch(path)
            name = found["name"] if found else None
            what = found["what"] if found else path
            if what == _CLASSIFY[0]:
                await self._classify(name, exchange, scope, receive)
                return
            with models.borrow(name) as engine:
                if what == playground.REPORT_ADDRESS:
                    await playground.send_report(exchange, scope, engine.package_path)
                else:
                    await exchange.answer(json.dumps(self._described(engine)).encode())

    def _described(self, engine: Engine) -> dict[str, Any]:
        """What GET /model says."""
        report = self._page and playground.report_of(engine.package_path) is not None
        return {**engine.describe(), "report": report}

    async def _classify(self, name: str | None, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        """Answer first and count afterwards, so that no client waits for the counting."""
        models: Registry[Engine] = self._state["models"]
        gate: Gate = self._state["gate"]
        answer: Answer | None = None
        with models.borrow(name) as engine:
            try:
                with gate.enter():
                    headers = dict(scope["headers"])
                    body = await read_body(receive, headers, engine.limits, gate.unread)
                    answer = await engine.respond(headers, scope["query_string"], body)
                    await exchange.answer(answer.body, headers=[(b"server-timing", answer.stopwatch.header())])
            except RequestError as error:
                await exchange.fail(error)
            except Exception:
                await exchange.fail_internally()
        self.tally.add(engine.metrics, exchange.status, answer)
        if self._access_log:
            log_request(exchange.id_text, exchange.status, engine.model_id, answer)


def _listed(models: Registry[Engine]) -> dict[str, Any]:
    """What GET /models says."""
    engines, default = models.current
    listed = [
        {"name": name, "default": name == default, "model": engine.model, "task": engine.task}
        for name, engine in sorted(engines.items())
    ]
    return {"default": default, "models": listed}
