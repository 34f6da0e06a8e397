"""What is refused at the door is answered, counted and logged as the application would have it."""

from __future__ import annotations

import asyncio
import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from serve.door import Door
from serve.edge import Exchange
from serve.gate import Gate, full
from serve.registry import Registry
from serve.tally import Tally
from serve.tokens import Tokens

DATE = [(b"date", b"Sat, 21 Nov 2026 21:00:00 GMT")]
NAMED = [(b"content-type", b"application/json"), (b"x-request-id", b"mine")]
TOKEN = "a-token-of-this-server"


class Counted:
    """In the place of a model's metrics."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, Any]] = []

    def count_all(self, requests: Any) -> None:
        self.seen += requests


def engine(name: str) -> Any:
    return SimpleNamespace(metrics=Counted(), model_id=name, close=lambda: None)


ENGINES = {"first": engine("1"), "other": engine("2")}


def state(capacity: int = 0) -> dict[str, Any]:
    """Of a server whose gate is full, where nothing is said of its capacity."""
    return {"gate": Gate(capacity, 30), "models": Registry(ENGINES, "first")}


def ask(door: Door, url: bytes = b"/classify", headers: Any = NAMED) -> bytes | None:
    """`door.refuse` on an event loop, with all that it left to be counted counted."""

    async def whole() -> bytes | None:
        answer = door.refuse(url, headers, DATE)
        door._tally.flush()
        return answer

    return asyncio.run(whole())


def parsed(answer: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    return status, dict(line.split(b": ", 1) for line in lines), body


async def applications_answer() -> tuple[int, dict[bytes, bytes], bytes]:
    """What the layers behind the door send for the same request."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await Exchange({"headers": NAMED, "path": "/classify"}, send).fail(full())
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def test_the_answer_is_the_applications_to_the_byte() -> None:
    answer = ask(Door(state(), Tally()))
    assert answer is not None
    status, headers, body = parsed(answer)
    expected_status, expected_headers, expected_body = asyncio.run(applications_answer())
    assert status == b"HTTP/1.1 429 Too Many Requests"
    assert expected_status == 429
    assert headers == {**expected_headers, **dict(DATE)}
    assert body == expected_body
    assert int(headers[b"content-length"]) == len(body)


@pytest.mark.parametrize("given", [b"", b'"}', b"a b", b"x" * 65])
def test_an_id_that_is_none_is_replaced(given: bytes) -> None:
    answers = [ask(Door(state(), Tally()), headers=[(b"x-request-id", given)]) for _ in range(2)]
    ids = [json.loads(parsed(answer or b"")[2])["error"]["request_id"] for answer in answers]
    assert len(set(ids)) == 2
    assert all(len(each) == 16 for each in ids)


@pytest.mark.parametrize(
    ("url", "model"),
    [
        (b"/classify", "first"),
        (b"/predict", "first"),
        (b"/classify?top_k=3", "first"),
        (b"/models/other/classify", "other"),
        (b"/models/other/classify?top_k=3", "other"),
    ],
)
def test_it_is_counted_for_the_model_that_was_asked(url: bytes, model: str) -> None:
    for each in ENGINES.values():
        each.metrics.seen.clear()
    assert ask(Door(state(), Tally()), url) is not None
    assert {name: each.metrics.seen for name, each in ENGINES.items() if each.metrics.seen} == {model: [(429, None)]}


@pytest.mark.parametrize(
    "url", [b"/", b"/model", b"/classify/", b"/classifying", b"/models/none/classify", b"/admin/models/first", b"/%63"]
)
def test_what_is_no_request_to_classify_is_for_the_application(url: bytes) -> None:
    assert ask(Door(state(), Tally()), url) is None


def test_it_lets_in_while_there_is_room_or_nothing_is_loaded_or_connections_are_let_go() -> None:
    assert ask(Door(state(capacity=1), Tally())) is None
    assert ask(Door({}, Tally())) is None
    assert ask(Door(state(), Tally(), letting_go=lambda: True)) is None


def test_who_has_no_token_is_not_told_that_the_server_is_full() -> None:
    door = Door(state(), Tally(), Tokens([TOKEN], None))
    assert ask(door) is None
    assert ask(door, headers=[(b"authorization", b"Bearer another-one-that-is-wrong")]) is None
    assert ask(door, headers=[(b"authorization", b"Bearer " + TOKEN.encode())]) is not None


def test_it_is_in_the_access_log_where_there_is_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bentoml.limbeck"):
        ask(Door(state(), Tally()))
        assert caplog.messages == []
        ask(Door(state(), Tally(), access_log=True))
    assert caplog.messages == ["classify request_id=mine status=429"]
    assert caplog.records[0].fields["model"] == "1"  # type: ignore[attr-defined]
