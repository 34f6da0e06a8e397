"""What goes by express is answered as the application would have it: on real sockets, beside the same without."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from express_server import GOOD, LONG, OTHER, TOKEN, Server, Watched, one_thread, post, run, without_times
from helpers import encoded, tiny_package, tiny_text_package
from PIL import Image

from serve.brief import MOST_BYTES
from serve.engine import Engine
from serve.limits import Limits
from serve.predictor import Predictor
from serve.tokens import Tokens


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    with one_thread(tiny_text_package(tmp_path / "package").path, monkeypatch) as watched:
        yield watched


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(),
        post(OTHER),
        post(OTHER, b"/predict"),
        post(OTHER, b"/models/tiny/classify"),
        post('{"inputs": ["\\ud83d\\ude00 ä"]}'.encode()),
        post(b'{"inputs": ["' + b"a " * 40 + b'"]}'),
        post(b'{"inputs": [" "]}'),
        post(b'{"inputs": ["a"], "top_k": 99}'),
        post(b'{"inputs": ["a"], "topk": 2}'),
        post(b'{"inputs": []}'),
        post(b"{"),
        post(b""),
        post(b"\xff\xfe"),
        post(LONG),
        post(LONG * 2),
        post(path=b"/classify?top_k=2"),
        post(path=b"/classify?x#y"),
        post(path=b"/models/none/classify"),
        post(kind=b"text/plain"),
        post(headers=b"Content-Encoding: gzip\r\n"),
        post(headers=b"Authorization: Bearer something\r\n"),
        post(headers=b"Expect: something\r\n"),
        post(headers=b"Connection: close\r\n"),
    ],
)
def test_every_answer_is_the_applications(text: Watched, request_bytes: bytes) -> None:
    named = request_bytes.replace(b"Host: x\r\n", b"Host: x\r\nX-Request-ID: mine\r\n")

    async def talk(server: Server) -> Any:
        await server.warm()
        return without_times((await server.answers(named))[0])

    assert run(text, talk) == run(text, talk, express=False)


def test_a_short_text_is_answered_by_the_loop_once_it_is_known_how_long_one_takes(text: Watched) -> None:
    async def talk(server: Server) -> Any:
        return [json.loads((await server.answers(post()))[0][2]) for _ in range(3)]

    first, *others = run(text, talk)
    assert text.by_loop == [False, True, True]
    assert others == [first, first]


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(GOOD + b" " * MOST_BYTES),
        post(b'{"inputs": ["a", "b", "c", "d"], "top_k": 2}'),
        post(headers=b"Connection: close\r\n"),
        post().replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["long", "many", "close", "HTTP/1.0"],
)
def test_what_is_not_short_or_not_plain_is_left_to_a_thread(
    text: Watched, request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text.engine, "limits", Limits())

    async def talk(server: Server) -> int:
        await server.warm()
        return (await server.answers(request_bytes))[0][0]

    assert run(text, talk) == 200
    assert text.by_loop == [False]


def test_a_body_that_comes_later_is_waited_for_by_the_application(text: Watched) -> None:
    whole = post()

    async def talk(server: Server) -> Any:
        await server.warm()
        cuts = [(whole[:at], whole[at:]) for at in (10, len(whole) - len(GOOD), len(whole) - 3)]
        return [(await server.answers(*pieces))[0][0] for pieces in cuts]

    assert run(text, talk) == [200, 200, 200]
    assert text.by_loop == [True, False, False]  # a head in pieces is whole when its body is


def test_those_that_come_together_are_answered_in_turn_and_the_server_reads_in_between(text: Watched) -> None:
    seen: list[int] = []  # the loop's turn at which the model ran

    async def talk(server: Server) -> Any:
        await server.warm()
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        text.before = lambda: seen.append(turns)
        counting = asyncio.create_task(count())
        found = await asyncio.gather(*(server.answers(post(OTHER)) for _ in range(6)))
        counting.cancel()
        return [answer[0][0] for answer in found], server.gate.inside

    assert run(text, talk) == ([200] * 6, 0)
    assert text.by_loop == [True] * 6
    assert len(set(seen)) == 6


def test_connections_that_come_together_wait_for_no_more_than_the_answer_under_way(text: Watched) -> None:
    """uvloop accepts one at each turn, and each is made up here by what the protocol says of it."""
    seen: list[str] = []

    async def talk(server: Server) -> Any:
        await server.warm()
        loop, express = asyncio.get_running_loop(), server.kind.express
        left = [100]

        def accept() -> None:
            seen.append("connection")
            express.arrived()
            left[0] -= 1
            if left[0]:
                loop.call_soon(accept)

        def first() -> None:
            seen.append("model")
            if seen.count("model") == 1:
                time.sleep(0.1)  # until the second request is there as well
                accept()

        text.before = first
        return await asyncio.gather(*(server.answers(post(OTHER)) for _ in range(2)))

    run(text, talk)
    both = [at for at, what in enumerate(seen) if what == "model"]
    assert both[0] == 0
    assert 60 <= both[1] <= 80  # behind 64 of them, and not behind all


def test_one_connection_gets_its_answers_in_the_order_of_its_requests(text: Watched) -> None:
    async def talk(server: Server) -> Any:
        await server.warm()
        many = [post(OTHER), post(GOOD), post(b"{"), post(OTHER, b"/models/tiny/classify"), post(LONG)]
        asked = b"".join(each.replace(b"Host: x", b"Host: x\r\nX-Request-ID: n%d" % at) for at, each in enumerate(many))
        answers = await server.answers(asked, most=5)
        return [(status, headers[b"x-request-id"]) for status, headers, _ in answers], server.state.total_requests

    answers, total = run(text, talk)
    assert answers == [(200, b"n0"), (200, b"n1"), (400, b"n2"), (200, b"n3"), (200, b"n4")]
    assert total == 6


def test_beside_a_long_request_short_ones_go_to_a_thread_and_send_none_after_them_there(text: Watched) -> None:
    """Else those in threads would send the next ones there, for as long as the server is never empty."""
    in_a_thread, goes_on = threading.Event(), threading.Semaphore(0)

    def wait_in_a_thread() -> None:
        if not text.by_loop[-1]:
            in_a_thread.set()
            goes_on.acquire(timeout=10)

    async def talk(server: Server) -> Any:
        await server.warm()
        text.before = wait_in_a_thread
        long = asyncio.create_task(server.answers(post(b'{"inputs": ["a", "b", "c", "d"]}')))
        await asyncio.to_thread(in_a_thread.wait, 10)
        behind = asyncio.create_task(server.answers(post()))
        while server.gate.inside < 2:
            await asyncio.sleep(0.01)
        goes_on.release()
        first = (await long)[0][0]
        beside = [(await server.answers(post()))[0][0] for _ in range(2)]  # the one behind is still in the thread
        goes_on.release()
        return first, beside, (await behind)[0][0]

    assert run(text, talk) == (200, [200, 200], 200)
    assert text.by_loop == [False, False, True, True]


def test_a_server_that_is_full_refuses(text: Watched) -> None:
    async def talk(server: Server) -> Any:
        await server.warm()
        pipelined = [server.answers(post() * 2, most=2) for _ in range(3)]
        return sorted(status for answers in await asyncio.gather(*pipelined) for status, *_ in answers)

    found = run(text, talk, capacity=1)
    assert 200 in found
    assert set(found) <= {200, 429}


def test_who_waited_too_long_is_told_so(text: Watched) -> None:
    async def talk(server: Server) -> Any:
        await server.warm()
        server.gate.seconds = 0.0
        return (await server.answers(post()))[0]

    status, _, body = run(text, talk)
    assert (status, json.loads(body)["error"]["code"]) == (504, "timeout")
    assert text.by_loop == []


def test_a_model_that_fails_is_logged_and_the_client_told_nothing_of_it(
    text: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("a secret of the model")

    async def talk(server: Server) -> Any:
        await server.warm()
        text.before = fail
        failed = await server.answers(post())
        text.before = lambda: None
        return failed[0], (await server.answers(post()))[0][0], server.gate.inside

    (status, _, body), afterwards, inside = run(text, talk)
    assert (status, afterwards, inside) == (500, 200, 0)
    assert b"secret" not in body
    assert "a secret of the model" in caplog.text
    assert text.by_loop == [True, True]


def test_connections_that_are_to_be_let_go_are_the_applications(text: Watched) -> None:
    async def talk(server: Server) -> Any:
        await server.warm()
        server.letting_go = True
        return (await server.answers(post()))[0][0]

    assert run(text, talk) == 200
    assert text.by_loop == [False]


def test_without_a_token_it_is_the_application_that_refuses(text: Watched) -> None:
    async def talk(server: Server) -> Any:
        bearer = b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"
        found = [(await server.answers(post(headers=headers)))[0][0] for headers in (bearer, b"", bearer)]
        return found, text.by_loop

    assert run(text, talk, tokens=Tokens([TOKEN], None)) == ([200, 401, 200], [False, True])


def test_it_is_counted_and_logged(text: Watched, caplog: pytest.LogCaptureFixture) -> None:
    counted: list[Any] = []

    async def talk(server: Server) -> None:
        await server.warm()
        server.tally.flush()
        text.engine.metrics.count_all = counted.extend  # type: ignore[method-assign]
        await server.answers(post(headers=b"X-Request-ID: mine\r\n"))
        await server.answers(post(b"{"))
        server.tally.flush()

    with caplog.at_level(logging.INFO, "bentoml.limbeck"):
        run(text, talk)
    assert [status for status, _ in counted] == [200, 400]
    assert set(counted[0][1].stopwatch.laps) == {"queue", "preprocess", "compute", "overhead"}
    assert any(re.fullmatch(r"classify request_id=mine status=200 inputs=1 .*", line) for line in caplog.messages)


def test_a_small_image_goes_as_well_and_others_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.engine.pool_size", lambda serving: 1)
    monkeypatch.setattr("serve.brief.MOST_S", 10.0)
    image = Watched(tiny_package(tmp_path / "package").path)
    small, large = encoded(Image.new("RGB", (8, 8))), encoded(Image.new("L", (600, 600)))
    in_json = json.dumps({"inputs": [base64.b64encode(small).decode()]}).encode()
    bodies = [(small, b"image/png"), (large, b"image/png"), (in_json, b"application/json"), (small, b"image/png")]

    async def talk(server: Server) -> Any:
        await server.answers(post(small, kind=b"image/png"))
        return [without_times((await server.answers(post(*each[:1], kind=each[1])))[0])[2] for each in bodies]

    answers = run(image, talk)
    assert answers == run(image, talk, express=False)
    assert image.by_loop == [False, True, False, False, True, *[False] * 5]
    image.engine.close()


def test_what_is_not_short_says_nothing_of_what_is(text: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    took: list[int] = []
    monkeypatch.setattr(text.engine.brief, "took", lambda size_bytes, seconds: took.append(size_bytes))

    async def talk(server: Server) -> None:
        for count in (1, 40, 1, 40):
            await server.answers(post(json.dumps({"inputs": ["a"] * count}).encode()))

    run(text, talk)
    assert len(took) == 2


def test_two_threads_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.engine.pool_size", lambda serving: 2)
    engine = Engine(Predictor.load(tiny_text_package(tmp_path / "package").path), Limits())
    engine.brief.took(3, 0.0)
    engine.close()
    assert not engine.brief.ever


def test_a_machine_on_which_others_work_sends_nothing_to_threads(
    text: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an answer waited for a processor says nothing of how long it holds the loop once it has one."""
    monkeypatch.setattr("serve.brief.MOST_S", 0.1)
    text.before = lambda: time.sleep(0.15)

    async def talk(server: Server) -> Any:
        return [(await server.answers(post()))[0][0] for _ in range(4)]

    assert run(text, talk) == [200] * 4
    assert text.by_loop == [False, True, True, True]
