"""Whole answers as bytes, for what the web server's protocol answers by itself.

Errors are in the one form: {"error": {"code", "message", "hint", "request_id"}}
"""

from __future__ import annotations

import json

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from serve.errors import RequestError
from serve.headers import Headers, security_headers


class RawError:
    """An error's answer, of which only the request's id and what the web server adds is not known before."""

    def __init__(self, error: RequestError) -> None:
        content = {"code": error.code, "message": error.message, "hint": error.hint, "request_id": ""}
        body = json.dumps({"error": content}).encode()
        self._status = STATUS_LINE[error.status]
        self._body, self._end = body[:-3], body[-3:]  # the id stands between them
        self._head = _lines([(b"content-type", b"application/json"), *error.headers, *security_headers("")])

    def answer(self, request_id: bytes, more: Headers) -> bytes:
        """All of it, with these headers besides. `request_id` is as `request_id_of` gives it: it needs no escaping."""
        length = len(self._body) + len(request_id) + len(self._end)
        head = b"content-length: %d\r\nx-request-id: %b\r\n\r\n" % (length, request_id)
        return b"".join((self._status, _lines(more), self._head, head, self._body, request_id, self._end))


class RawAnswer:
    """What a request to classify gets, of which only what changes is not known before."""

    def __init__(self) -> None:
        self._head = _lines([(b"content-type", b"application/json"), *security_headers("")])

    def answer(self, body: bytes, request_id: bytes, timing: bytes, more: Headers) -> bytes:
        """All of it, with these headers besides. `request_id` is as in `RawError`, `timing` of Server-Timing."""
        head = b"content-length: %d\r\nserver-timing: %b\r\nx-request-id: %b\r\n\r\n"
        return b"".join((STATUS_LINE[200], _lines(more), self._head, head % (len(body), timing, request_id), body))


def _lines(headers: Headers) -> bytes:
    return b"".join([name + b": " + value + b"\r\n" for name, value in headers])
