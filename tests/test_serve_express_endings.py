"""Models that are replaced, clients that leave and servers that end while requests wait for the express."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from express_server import GOOD, Server, Watched, one_thread, post, run
from helpers import tiny_text_package


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    with one_thread(tiny_text_package(tmp_path / "package").path, monkeypatch) as watched:
        yield watched


@pytest.mark.parametrize("path", [b"/classify", b"/models/tiny/classify"])
def test_a_model_that_is_replaced_meanwhile_still_answers(text: Watched, path: bytes) -> None:
    async def talk(server: Server) -> Any:
        await server.warm()
        stand_in: Any = SimpleNamespace(close=lambda: None, brief=text.engine.brief)
        take = server.kind.express.take

        def late(*about: Any) -> Any:
            ticket = take(*about)
            server.registry.swap({"another": stand_in}, "another")
            text.engine.close()  # which the registry has another thread do
            return ticket

        server.kind.express.take = late
        return (await server.answers(post(path=path)))[0][0], server.gate.inside

    assert run(text, talk) == (200, 0)
    assert text.by_loop == [True]


def test_nothing_is_computed_for_a_client_that_has_left(text: Watched) -> None:
    async def talk(server: Server) -> Any:
        await server.warm()
        take = server.kind.express.take

        def left(*about: Any) -> Any:
            for connection in list(server.state.connections):
                connection.transport.abort()
            ticket = take(*about)
            ticket.disconnected = True  # as the protocol says once the loop has seen it
            return ticket

        server.kind.express.take = left
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await server.answers(post())
        return server.gate.inside

    assert run(text, talk) == 0
    assert text.by_loop == []


@pytest.mark.parametrize("express", [True, False])
@pytest.mark.parametrize("last", [b"", b"\0"], ids=["gone", "refused"])
def test_who_sends_several_and_is_gone_or_refused_is_not_written_to(
    text: Watched, express: bool, last: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Also the first of several requests, when the connection already heeds the last of them."""

    async def talk(server: Server) -> Any:
        await server.warm()
        loop, begun = asyncio.get_running_loop(), asyncio.Event()
        failed: list[Any] = []
        loop.set_exception_handler(lambda _, context: failed.append(context))
        data_received = server.kind.data_received

        def received(connection: Any, data: bytes) -> None:
            data_received(connection, data)
            begun.set()
            if not last:
                connection.transport.abort()

        def later(*about: Any) -> Any:
            server.kind.express._turning = True  # so that it plans no turn itself
            loop.call_later(0.02, server.kind.express._turn)
            return take(*about)

        server.kind.data_received = received
        if express:
            take, server.kind.express.take = server.kind.express.take, later
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(post() * 3 + last)
        await begun.wait()
        answered = await asyncio.wait_for(reader.read(), 5) if last else b""
        while server.gate.inside:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        writer.close()
        return failed, answered.count(b"HTTP/1.1 "), answered[:12]

    refused = ([], 1, b"HTTP/1.1 400") if last else ([], 0, b"")
    assert run(text, talk, express=express) == refused
    assert not [record for record in caplog.records if record.exc_info]
    if express:
        assert text.by_loop == []


def test_who_says_behind_the_body_that_it_was_the_last_is_let_go(text: Watched) -> None:
    head = post().partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
    body = b"%x\r\n%b\r\n0\r\nConnection: close\r\n\r\n" % (len(GOOD), GOOD)

    async def talk(server: Server) -> Any:
        await server.warm()
        return (await server.answers(head + body))[0][:2]

    status, headers = run(text, talk)
    assert (status, headers[b"connection"]) == (200, b"close")
    assert text.by_loop == [True]


def test_a_connection_that_waits_keeps_nothing_of_its_last_request(text: Watched) -> None:
    """Not even until the garbage is collected: a model that was replaced would stay with it."""

    async def talk(server: Server) -> Any:
        await server.warm()
        take, taken = server.kind.express.take, []

        def watched(*about: Any) -> Any:
            ticket = take(*about)
            taken.append(weakref.ref(ticket))
            return ticket

        server.kind.express.take = watched
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(post())
        await reader.readuntil(b"}]}]}")
        await asyncio.sleep(0.01)
        found = [ticket() for ticket in taken], len(server.state.connections)
        writer.close()
        return found

    gc.disable()
    try:
        assert run(text, talk) == ([None], 1)
    finally:
        gc.enable()


def test_a_server_that_ends_says_so_and_answers_what_it_has(text: Watched) -> None:
    async def talk(server: Server) -> Any:
        await server.warm()
        take = server.kind.express.take

        def end(*about: Any) -> Any:
            for connection in server.state.connections:
                asyncio.get_running_loop().call_soon(connection.shutdown)
            return take(*about)

        server.kind.express.take = end
        return (await server.answers(post()))[0][:2]

    status, headers = run(text, talk)
    assert (status, headers[b"connection"]) == (200, b"close")
    assert text.by_loop == [True]
