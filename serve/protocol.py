"""What a connection may ask of the server before a request reaches it: uvicorn's protocol with limits.

uvicorn on httptools waits for the head of a request as long as it takes, and reads as many headers as are sent. Here a
head has a time and a size, a connection that waits makes room for a new one, and what is not HTTP is refused in the
one error form. Nothing is upgraded: a client that offers HTTP/2 or a WebSocket (Java's does with each request) is
answered in HTTP/1.1, where uvicorn would lose the body.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import httptools
import uvicorn.config

from serve.door import Door
from serve.errors import RequestError
from serve.express import Express
from serve.flow import InTurn
from serve.headers import request_id_of
from serve.limits import Limits
from serve.raw import RawError
from serve.shortcut import ShortcutProtocol

MAX_HEAD_BYTES = 64 * 1024  # of all headers, as h11's default; also what chunks may weigh beside their content
MAX_HEADERS = 100  # Apache's default
MAX_URL_BYTES = 8190  # Apache's default for the whole line
_LOOKS_S = 1.0  # how often a connection is looked at
_LINGER_S = 2.0  # in which a client that is refused may finish sending: else the network drops the answer before it

_NOT_HTTP = (400, "not_http", "this is no HTTP request that can be understood", "let an HTTP library build it")
_LARGE_HEAD = (
    431,
    "headers_too_large",
    f"the headers are over {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} in number",
    "send fewer or smaller headers",
)
_LONG_URL = (414, "url_too_long", f"the address is over {MAX_URL_BYTES} bytes", "see /openapi.json for the addresses")
_SLOW_HEAD = (408, "slow_request", "the request's headers did not arrive in time", "send them faster")
_FULL = (503, "too_many_connections", "the server has as many connections as it takes at once", "try again in a moment")
_DROPPED = (b"connection", b"upgrade", b"http2-settings")  # of a request that offers to speak something else

Refusal = tuple[int, str, str, str]


def install(limits: Limits, door: Door, express: Express) -> None:
    """Make this the protocol of the servers that this process starts; BentoML starts uvicorn with its default."""
    BoundedProtocol.limits = limits
    BoundedProtocol.door = door
    BoundedProtocol.express = express
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedProtocol.__name__}"
    _allow_files(limits.max_connections + 128)


def _allow_files(wanted: int) -> None:
    """A connection is an open file; many systems give a process 1,024 or 256 of them until it asks for more."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # no such module on Windows
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class BoundedProtocol(ShortcutProtocol):
    """One connection."""

    limits = Limits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._refusal: Refusal = _NOT_HTTP  # what the parser's next error means
        self._refused = False
        self._headed = True  # no head has begun, or the last that did is complete
        self._beside = 0  # bytes that came and were no body: the head, the frames of chunks, what follows them
        self._stalled_since: float | None = None  # the client does not read what we write
        # uvicorn has a line made for each request wherever the root logger has a handler, also if nobody is to read it
        self.access_log = self.access_log and self.access_logger.isEnabledFor(logging.INFO)
        super().connection_made(transport)
        self.flow = InTurn(transport, self.pipeline)
        self._watch = self.loop.call_later(_LOOKS_S, self._look)
        if len(self.connections) > self.limits.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        super().connection_lost(exc)

    def _make_room(self) -> None:
        """End the connection that has been idle longest, this one if all others are at work."""
        others = (one for one in self.connections if isinstance(one, BoundedProtocol) and one is not self and one.idle)
        oldest = min(others, key=lambda one: one._idle_since, default=None)
        if oldest is None:
            self._refuse(_FULL)
        else:
            self.connections.discard(oldest)  # now, since its end is only seen later
            oldest.transport.abort()

    def _look(self) -> None:
        now = self.loop.time()
        if self._stalled_since is not None and now - self._stalled_since > self.limits.request_seconds:
            self.transport.abort()
        elif self.idle and now - self._idle_since > self.timeout_keep_alive + self.limits.head_seconds:
            # To a client that has sent nothing, an answer could seem to be that of what it is just about to send.
            self.transport.close() if self._headed else self._refuse(_SLOW_HEAD)
        else:
            self._watch = self.loop.call_later(_LOOKS_S, self._look)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._beside += len(data)
        try:
            while data:
                data = self._feed(data)
        except httptools.HttpParserError:
            self._refuse(self._refusal)
        else:
            self._let_in()
            if self._beside > MAX_HEAD_BYTES:
                self._refuse(_LARGE_HEAD)

    def _feed(self, data: bytes) -> bytes:
        """Have `data` parsed. What is left: the same again without an offer to speak something else than HTTP/1."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._plain_head() + data[upgrade.args[0] :]
        return b""

    def on_message_begin(self) -> None:
        self._beside = 0
        self._headed = False
        self._unset_keepalive_if_required()  # it may have been set since this data came, where one was turned away
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._stop(_LONG_URL)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headed:  # what follows a chunked body is no header: it would change how the body is read
            return
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            self._stop(_LARGE_HEAD)

    def on_headers_complete(self) -> None:
        self._headed = True
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._stop(_LARGE_HEAD)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._beside -= len(body) + len(body) // 8  # a body in chunks of 64 bytes is fine, one in single bytes is not
        super().on_body(body)

    def pause_writing(self) -> None:
        self._stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled_since = None
        super().resume_writing()

    def _should_upgrade(self) -> bool:
        return True  # uvicorn then leaves an upgrade to what catches HttpParserUpgrade

    def _plain_head(self) -> bytes:
        """The head that was just read, without its offer, for a parser that has not seen it."""
        method = self.scope["method"].encode("ascii")
        if method == b"CONNECT":  # which is no offer: nothing else can follow
            raise httptools.HttpParserError
        lines = [method + b" " + self.url + b" HTTP/" + self.scope["http_version"].encode("ascii")]
        lines += [name + b": " + value for name, value in self.headers if name not in _DROPPED]
        self.parser = httptools.HttpRequestParser(self)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _stop(self, refusal: Refusal) -> None:
        """Called back by the parser: end its work with `refusal`."""
        self._refusal = refusal
        raise ValueError(refusal[1])

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with an error and close, once the client has heard it. A request that is under way is given up."""
        if self.transport.is_closing():
            return
        self._refused = True
        self._unset_keepalive_if_required()
        self._give_up()
        self.transport.write(self._error(*refusal))
        self._watch.cancel()
        self._watch = self.loop.call_later(_LINGER_S, self.transport.abort)
        if self.transport.can_write_eof():
            self.flow.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()

    def _error(self, status: int, code: str, message: str, hint: str) -> bytes:
        """A whole answer in the one error form."""
        error = RequestError(status, code, message, hint, [(b"retry-after", b"1")] if status == 503 else ())
        more = [*self.server_state.default_headers, (b"connection", b"close")]
        return RawError(error).answer(request_id_of(self.headers or []), more)
