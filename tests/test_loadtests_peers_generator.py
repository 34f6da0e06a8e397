"""The closed-loop generator, against servers that are made up."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtests.peers.generator import measure, parse_response, problem_of

RIGHT = [{"label": "a", "score": 0.75, "top_k": [{"label": "a", "score": 0.75}, {"label": "b", "score": 0.25}]}]


def response(content: Any, status: int = 200) -> bytes:
    body = json.dumps(content).encode()
    return b"HTTP/1.1 %d OK\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


@contextmanager
def server(answer: bytes) -> Iterator[tuple[int, list[int]]]:
    """Its port, and the requests that each connection sent. Each answer arrives in two pieces."""
    seen: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at = len(seen)
        seen.append(0)
        while await reader.read(65536):
            seen[at] += 1
            writer.write(answer[:20])
            await writer.drain()
            writer.write(answer[20:])
        writer.close()

    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield listening.sockets[0].getsockname()[1], seen
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def send_all(tmp_path: Path, port: int, **changes: Any) -> dict[str, Any]:
    file = tmp_path / "requests.json"
    request = base64.b64encode(b"POST /classify HTTP/1.1\r\nContent-Length: 1\r\n\r\nx").decode()
    file.write_text(json.dumps([{"request": request, "predictions": RIGHT}]))
    test = {"port": port, "requests": str(file), "connections": 3, "count": 40, "warm_up": 5, "seed": 0, **changes}
    return measure(test)


def test_each_request_is_timed_and_its_answer_compared(tmp_path: Path) -> None:
    with server(response({"predictions": RIGHT})) as (port, seen):
        result = send_all(tmp_path, port)
    assert len(result["latencies_ms"]) == 40
    assert all(latency > 0 for latency in result["latencies_ms"])
    assert (result["wrong"], result["warmed_up"]) == (0, 5)
    assert len(seen) == 6  # three connections to warm up with, and three to measure
    assert sum(seen) == 45


@pytest.mark.parametrize(
    ("content", "status", "problem"),
    [
        ({"error": "no"}, 500, "status 500"),
        ({"predictions": [{**RIGHT[0], "top_k": RIGHT[0]["top_k"][::-1]}]}, 200, "expected"),
        (
            {"predictions": [{**RIGHT[0], "top_k": [{"label": "a", "score": 0.7501}, RIGHT[0]["top_k"][1]]}]},
            200,
            "0.7501",
        ),
    ],
)
def test_wrong_answers_are_counted(tmp_path: Path, content: Any, status: int, problem: str) -> None:
    with server(response(content, status)) as (port, _):
        result = send_all(tmp_path, port)
    assert result["wrong"] == 40
    assert problem in result["first_problem"]


def test_scores_may_differ_by_rounding() -> None:
    near = [{"top_k": [{"label": "a", "score": 0.750001}, {"label": "b", "score": 0.249999}]}]
    assert problem_of(200, json.dumps({"predictions": near}).encode(), RIGHT) == ""


def test_a_response_is_whole_only_with_all_of_its_body() -> None:
    whole = response({"predictions": RIGHT})
    assert parse_response(whole[:10]) is None
    assert parse_response(whole[:-1]) is None
    assert parse_response(whole) == (200, whole.partition(b"\r\n\r\n")[2])
    with pytest.raises(ValueError, match="without Content-Length"):
        parse_response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"refused|Connect"):
        send_all(tmp_path, 1)
