"""The outermost layer of the server: request ids, and every error in one form, BentoML's own included.

    {"error": {"code", "message", "hint", "request_id"}}

What never becomes a request is out of its reach: `serve.protocol` refuses it, in the same form.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from serve.errors import RequestError, did_you_mean
from serve.headers import Headers, request_id_of, security_headers
from serve.logs import log
from serve.tokens import Tokens

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

EXCHANGE = "limbeck.exchange"  # where an inner layer finds the request's Exchange in the scope

# BentoML answers these in its own words, or without any.
_FOREIGN = {
    429: ("too_many_requests", "the server has as many requests as it takes at once", "try again in a moment"),
    503: ("not_ready", "the server is not ready", "try again in a moment"),
    504: ("timeout", "the answer was not ready in time", "send fewer or smaller inputs in one request"),
}


class Edge:
    """Wraps an ASGI application. `routes` maps its paths to their methods; nothing else reaches the application.

    Otherwise each random address would leave its own label in BentoML's metrics, and the memory would fill.
    """

    def __init__(self, app: App, routes: Mapping[str, Sequence[str]], tokens: Tokens | None = None) -> None:
        self._app = app
        self._routes = routes
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # closed before it is accepted, a 403 to the client
            await receive()
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = scope[EXCHANGE] = Exchange(scope, send)
        try:
            if self._tokens and (refusal := self._tokens.refusal(scope["path"], scope["headers"])):
                raise refusal  # before anything else is said, also of which addresses there are
            if (misrouted := self._misrouted(scope)) is not None:
                raise misrouted
            await self._app(scope, receive, exchange.relay)
            if not exchange.started:  # BentoML's time limit swallows what is raised within it
                raise RuntimeError("the application sent no answer")
        except RequestError as error:
            await exchange.fail(error)
        except Exception:
            await exchange.fail_internally()

    def _misrouted(self, scope: Scope) -> RequestError | None:
        methods = self._routes.get(scope["path"])
        if methods is None:
            hint = did_you_mean(scope["path"][:40], [route for route in self._routes if route.count("/") == 1])
            return RequestError(404, "not_found", "there is nothing at this address", hint)
        if scope["method"] not in methods:
            allow = ", ".join(methods)
            return RequestError(
                405,
                "method_not_allowed",
                f"this address takes {allow}",
                "see /openapi.json",
                [(b"allow", allow.encode())],
            )
        return None


class Exchange:
    """One request and its answer, which carries the request's id and, if it is an error, has the one form."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.request_id = request_id_of(scope["headers"])
        self._path = scope["path"]
        self._send = send
        self.started = False
        self.status = 0  # of the answer that was sent
        self._foreign_status: int | None = None  # of an error that is not in our form and is being swallowed

    async def relay(self, message: Message) -> None:
        """Pass on what BentoML sends; an error of its own is replaced."""
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                self._foreign_status = message["status"]
                return
            self.started, self.status = True, message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._headers()]}
        elif self._foreign_status is not None:
            if not message.get("more_body", False):
                status, self._foreign_status = self._foreign_status, None
                await self.fail(_foreign_error(status))
            return
        await self._send(message)

    async def answer(self, body: bytes, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send a whole JSON answer."""
        self.started, self.status = True, status
        own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        all_headers = [*own, *headers, *self._headers()]
        await self._send({"type": "http.response.start", "status": status, "headers": all_headers})
        await self._send({"type": "http.response.body", "body": body})

    async def fail(self, error: RequestError) -> None:
        """Send an error in the one form."""
        content = {"code": error.code, "message": error.message, "hint": error.hint, "request_id": self.id_text}
        await self.answer(json.dumps({"error": content}).encode(), error.status, error.headers)

    async def fail_internally(self) -> None:
        """Log the exception being handled, and send a 500 that says nothing of it."""
        error = internal_error(self.id_text)
        if not self.started:
            await self.fail(error)

    def _headers(self) -> Headers:
        return [(b"x-request-id", self.request_id), *security_headers(self._path)]

    @property
    def id_text(self) -> str:
        return self.request_id.decode("ascii")


def internal_error(request_id: str) -> RequestError:
    """Log the exception being handled: what the client is told of it, a 500 that says nothing."""
    log.exception("request %s failed", request_id, extra={"fields": {"request_id": request_id}})
    return _foreign_error(500)


def _foreign_error(status: int) -> RequestError:
    if status in _FOREIGN:
        code, message, hint = _FOREIGN[status]
        return RequestError(status, code, message, hint, [(b"retry-after", b"1")] if status in (429, 503) else ())
    if status >= 500:
        hint = "the server's log has the details under the request id"
        return RequestError(status, "internal", "the server failed to answer", hint)
    return RequestError(status, "bad_request", "the request cannot be answered", "see /openapi.json")
