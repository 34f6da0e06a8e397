"""What a connection may ask, on real sockets, before any application is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

import serve.protocol as protocol
from serve.limits import Limits
from serve.protocol import BoundedProtocol

LIMITS = Limits(max_connections=4, head_seconds=1, request_seconds=1)


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the request's headers and how long its body was; /wait takes a second, /much answers a lot."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    if scope["path"] == "/wait":
        await asyncio.sleep(1)
    answer = {"size": size, "method": scope["method"], "headers": [name.decode() for name, _ in scope["headers"]]}
    body = b"x" * 50_000_000 if scope["path"] == "/much" else json.dumps(answer).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Server:
    """A listening server and its connections."""

    def __init__(self, port: int, state: ServerState) -> None:
        self.port, self.state = port, state

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, data: bytes) -> list[tuple[int, dict[str, Any]]]:
        """Every answer to `data`, sent on a connection of its own."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            return await _answers(reader, 2000)
        finally:
            writer.close()


async def _answers(reader: asyncio.StreamReader, most: int = 100) -> list[tuple[int, dict[str, Any]]]:
    """Status and JSON of each answer until the server closes, or of the first `most`."""
    answers = []
    try:
        while len(answers) < most:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            body = json.loads(await reader.readexactly(int(headers[b"content-length"])))
            if "error" in body:
                assert sorted(body["error"]) == ["code", "hint", "message", "request_id"]
                assert headers[b"x-request-id"].decode() == body["error"]["request_id"].lower()
                assert headers[b"connection"] == b"close"
                assert headers[b"x-content-type-options"] == b"nosniff"
            answers.append((int(head.split()[1]), body))
    except (asyncio.IncompleteReadError, ConnectionResetError):
        pass
    return answers


@asynccontextmanager
async def _server(limits: Limits, door: Any) -> AsyncIterator[Server]:
    kind = type("Bounded", (BoundedProtocol,), {"limits": limits, "door": door})
    config, state = uvicorn.Config(_echo, timeout_keep_alive=0, log_config=None), ServerState()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: kind(config, state, {}, loop), "127.0.0.1", 0)
    try:
        yield Server(listening.sockets[0].getsockname()[1], state)
    finally:
        listening.close()
        for connection in list(state.connections):
            connection.transport.abort()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs `talk(server)`, on an event loop and a server of its own."""
    monkeypatch.setattr(protocol, "_LOOKS_S", 0.05)

    def run(talk: Callable[[Server], Coroutine[Any, Any, Any]], limits: Limits = LIMITS, door: Any = None) -> Any:
        async def whole() -> Any:
            async with _server(limits, door) as server:
                return await asyncio.wait_for(talk(server), 20)

        return asyncio.run(whole())

    return run


def _get(headers: bytes = b"", path: bytes = b"/") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n"


def _chunked(framed: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + framed


CLOSE = b"Connection: close\r\n"


def test_requests_are_answered_one_after_the_other(run: Callable[..., Any]) -> None:
    data = _get() + b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc" + _get(CLOSE)
    answers = run(lambda server: server.ask(data))
    assert [status for status, _ in answers] == [200, 200, 200]
    assert [body["size"] for _, body in answers] == [0, 3, 0]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", (400, "not_http")),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, "not_http")),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: x\r\n\r\n", (400, "not_http")),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", (400, "not_http")),
        (_get(b"a b\r\n"), (400, "not_http")),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", (400, "not_http")),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na", (400, "not_http")),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400, "not_http")),
        (_chunked(b"xyz\r\n"), (400, "not_http")),
        (_get(b"a: b\r\n" * 101), (431, "headers_too_large")),
        (_get(b"a: b\r\n" * 100_000), (431, "headers_too_large")),
        (_get(b"a: " + b"b" * 70_000 + b"\r\n"), (431, "headers_too_large")),
        (_get(b"a: " + b"b" * 10_000_000), (431, "headers_too_large")),
        (_get(b"a" * 10_000_000), (431, "headers_too_large")),
        (_get(path=b"/" + b"a" * 9000), (414, "url_too_long")),
        (b"GET /" + b"a" * 10_000_000, (414, "url_too_long")),
        (_chunked(b"1\r\nx\r\n0\r\n" + b"a: b\r\n" * 1_000_000), (431, "headers_too_large")),
        (_chunked(b"1\r\nx\r\n0\r\na: " + b"b" * 10_000_000), (431, "headers_too_large")),
        (_chunked(b"1;" + b"a=b;" * 3_000_000), (431, "headers_too_large")),
        (_chunked(b"1\r\nx\r\n" * 1_000_000), (431, "headers_too_large")),
    ],
    ids=range(20),
)
def test_what_is_no_request_or_too_much_of_one_is_refused_in_the_one_form(
    run: Callable[..., Any], data: bytes, expected: tuple[int, str]
) -> None:
    ((status, body),) = run(lambda server: server.ask(data))
    assert (status, body["error"]["code"]) == expected
    assert "x" * 100 not in body["error"]["message"]


def test_a_request_with_as_much_as_is_allowed_is_answered(run: Callable[..., Any]) -> None:
    usual = _get(CLOSE + b"a: b\r\n" * 90 + b"c: " + b"d" * 60_000 + b"\r\n", path=b"/" + b"a" * 4000)
    ((status, body),) = run(lambda server: server.ask(usual))
    assert (status, len(body["headers"])) == (200, 93)


@pytest.mark.parametrize("size", [64, 1000, 100_000])
def test_a_body_in_chunks_of_any_sensible_size_arrives(run: Callable[..., Any], size: int) -> None:
    count = 2_000_000 // size
    framed = (b"%x\r\n" % size + b"y" * size + b"\r\n") * count + b"0\r\n\r\n"
    ((status, body),) = run(lambda server: server.ask(_chunked(framed)))
    assert (status, body["size"]) == (200, size * count)


def test_the_request_id_that_was_given_comes_back(run: Callable[..., Any]) -> None:
    ((_, body),) = run(lambda server: server.ask(_get(b"X-Request-ID: mine-1\r\n" + b"a: b\r\n" * 200)))
    assert body["error"]["request_id"] == "mine-1"


def test_what_follows_a_chunked_body_is_no_header(run: Callable[..., Any]) -> None:
    ((_, body),) = run(lambda server: server.ask(_chunked(b"1\r\nx\r\n0\r\ncontent-encoding: gzip\r\n\r\n")))
    assert body["headers"] == ["host", "connection", "transfer-encoding"]


@pytest.mark.parametrize("offer", ["h2c", "websocket", "TLS/1.0"])
def test_an_offer_to_speak_something_else_is_passed_over_and_nothing_is_lost(
    run: Callable[..., Any], offer: str
) -> None:
    upgrade = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {offer}\r\nHTTP2-Settings: AAMAAABk\r\n".encode()
    post = b"POST / HTTP/1.1\r\nHost: x\r\n" + upgrade + b"Content-Length: 5\r\n\r\n"
    answers = run(lambda server: server.ask((post + b"12345") * 2000 + _get(CLOSE)))
    assert [(status, body["size"]) for status, body in answers[:100]] == [(200, 5)] * 100

    async def in_pieces(server: Server) -> list[tuple[int, dict[str, Any]]]:
        reader, writer = await server.connect()
        for piece in (post[:40], post[40:], b"12", b"345" + _get(upgrade) + _get(CLOSE)):
            writer.write(piece)
            await asyncio.sleep(0.02)
        return await _answers(reader)

    answers = run(in_pieces)
    assert [body["size"] for _, body in answers] == [5, 0, 0]
    assert answers[0][1]["headers"] == ["host", "content-length"]


def test_a_head_that_does_not_arrive_is_not_waited_for(run: Callable[..., Any]) -> None:
    assert run(lambda server: server.ask(b"")) == []  # closed without a word
    assert run(lambda server: server.ask(b"GET / HTTP/1.1\r\nHost:"))[0][0] == 408

    async def dripping(server: Server) -> list[tuple[int, dict[str, Any]]]:
        reader, writer = await server.connect()
        writer.write(b"GET / HTTP/1.1\r\n")
        answers = asyncio.ensure_future(_answers(reader))
        while not answers.done() and not writer.is_closing():
            writer.write(b"a: b\r\n")
            await asyncio.sleep(0.1)
        return answers.result()

    assert run(dripping)[0][1]["error"]["code"] == "slow_request"


def test_a_request_under_way_is_not_idle_however_long_it_takes(run: Callable[..., Any]) -> None:
    answers = run(lambda server: server.ask(_get(path=b"/wait") + _get(CLOSE, path=b"/wait")))
    assert [status for status, _ in answers] == [200, 200]


def test_a_client_that_does_not_read_is_let_go(run: Callable[..., Any]) -> None:
    async def unread(server: Server) -> int:
        _, writer = await server.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(_get(path=b"/much"))
        await asyncio.sleep(0.2)
        assert len(server.state.connections) == 1
        await asyncio.sleep(2)
        return len(server.state.connections)

    assert run(unread) == 0


def test_who_sends_many_requests_ahead_is_read_as_they_are_answered(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    segment, one = 256 * 1024, _get(b"X: " + b"x" * 1024 + b"\r\n")  # of asyncio: what is read at once
    data_received, waiting = BoundedProtocol.data_received, [0]

    def watched(connection: BoundedProtocol, data: bytes) -> None:
        data_received(connection, data)
        waiting.append(len(connection.pipeline))

    monkeypatch.setattr(BoundedProtocol, "data_received", watched)
    answers = run(lambda server: server.ask(one * 1000 + _get(CLOSE)))
    assert [status for status, _ in answers] == [200] * 1001
    assert len(waiting) > 4
    assert max(waiting) <= segment // len(one) + 1


def test_a_new_connection_takes_the_place_of_the_one_that_was_idle_longest(run: Callable[..., Any]) -> None:
    async def crowd(server: Server) -> None:
        first, *others = [await server.connect() for _ in range(LIMITS.max_connections)]
        await asyncio.sleep(0.05)
        assert len(await server.ask(_get(CLOSE))) == 1
        assert await asyncio.wait_for(first[0].read(), 1) == b""
        for reader, writer in others:
            writer.write(_get())
            assert [status for status, _ in await _answers(reader, most=1)] == [200]

    run(crowd, Limits(max_connections=4, head_seconds=10))


def test_where_all_are_at_work_a_new_connection_is_turned_away(run: Callable[..., Any]) -> None:
    async def crowd(server: Server) -> None:
        busy = [await server.connect() for _ in range(LIMITS.max_connections)]
        for _, writer in busy:
            writer.write(_get(CLOSE, path=b"/wait"))
        await asyncio.sleep(0.2)
        ((status, body),) = await server.ask(b"")
        assert (status, body["error"]["code"]) == (503, "too_many_connections")
        for reader, _ in busy:
            assert [status for status, _ in await _answers(reader)] == [200]

    run(crowd)


def _post(body: bytes, path: bytes = b"/", headers: bytes = b"") -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(body) + headers + b"\r\n" + body


class Full:
    """A door that refuses what is asked of /full."""

    full = True

    def refuse(self, url: bytes, headers: Any, default_headers: Any) -> bytes | None:
        return b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}" if url == b"/full" else None


def test_what_is_turned_away_keeps_its_connection_and_its_body_is_nobodys(run: Callable[..., Any]) -> None:
    async def talk(server: Server) -> Any:
        reader, writer = await server.connect()
        refused = _post(b"GET / HTTP/1.1\r\n\r\n" * 2000, b"/full")
        writer.write(refused[:100])
        first = await _answers(reader, most=1)  # before the body is there
        for at in range(100, len(refused) - 100, 7000):
            writer.write(refused[at : min(at + 7000, len(refused) - 100)])
            await asyncio.sleep(0.001)
        writer.write(refused[-100:] + _post(b"abc") + _post(b"", b"/full") + _post(b"abcd"))
        answers = first + await _answers(reader, most=3)
        writer.close()
        return answers, server.state.total_requests

    answers, total = run(talk, door=Full())
    # The last two are pipelined behind one that is under way: the application has them.
    assert [(status, body.get("size")) for status, body in answers] == [(429, None), (200, 3), (200, 0), (200, 4)]
    assert total == 4


@pytest.mark.parametrize(
    "data",
    [
        _get(CLOSE, b"/full"),
        _post(b"", b"/full", CLOSE),
        _post(b"", b"/full").replace(b"1.1", b"1.0"),
        _post(b"ab", b"/full", b"Expect: 100-continue\r\nConnection: close\r\n"),
    ],
    ids=["GET", "close", "HTTP/1.0", "expects"],
)
def test_what_is_no_plain_post_is_never_turned_away_by_the_protocol(run: Callable[..., Any], data: bytes) -> None:
    async def talk(server: Server) -> bytes:
        reader, writer = await server.connect()
        writer.write(data)
        answer = await reader.read()
        writer.close()
        return answer

    assert b"HTTP/1.1 200 OK" in run(talk, door=Full())


def test_one_who_offers_another_protocol_is_turned_away_as_well(run: Callable[..., Any]) -> None:
    async def talk(server: Server) -> Any:
        reader, writer = await server.connect()
        writer.write(_post(b"abc", b"/full", b"Connection: Upgrade\r\nUpgrade: h2c\r\n") + _post(b"abcd"))
        answers = await _answers(reader, most=2)
        writer.close()
        return [(status, body.get("size")) for status, body in answers]

    assert run(talk, door=Full()) == [(429, None), (200, 4)]


def test_a_body_that_is_refused_and_never_ends_ends_its_connection(run: Callable[..., Any]) -> None:
    async def talk(server: Server) -> bool:
        reader, writer = await server.connect()
        writer.write(_post(b"", b"/full").replace(b"Content-Length: 0", b"Content-Length: 100000"))
        assert [status for status, _ in await _answers(reader, most=1)] == [429]
        for _ in range(100):  # 10 s; 1 s is given
            writer.write(b"x")
            await asyncio.sleep(0.1)
            if reader.at_eof() or reader.exception():
                return True
        return False

    assert run(talk, door=Full())
