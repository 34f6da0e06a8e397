"""Who is answered by the event loop itself: brief texts that nobody else waits beside."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_package, tiny_text_package

from serve.brief import MOST_BYTES, MOST_S, Brief
from serve.engine import Engine
from serve.gate import Gate
from serve.limits import Limits
from serve.predictor import Predictor

HEADERS = {b"content-type": b"application/json"}
BODY = b'{"inputs": ["a good film"]}'


class Watched:
    """An engine that says which thread its model ran in."""

    def __init__(self, package: Path) -> None:
        self.engine = Engine(Predictor.load(package), Limits())
        self.threads: list[bool] = []  # whether it was the event loop's
        compute = self.engine._predictor.compute

        def watched(inputs: np.ndarray) -> np.ndarray:
            self.threads.append(threading.current_thread() is threading.main_thread())
            return compute(inputs)

        self.engine._predictor.compute = watched  # type: ignore[method-assign]

    async def ask(self, gate: Gate, body: bytes = BODY) -> Any:
        with gate.enter():
            return json.loads((await self.engine.respond(HEADERS, b"", body, gate.alone)).body)


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr("serve.engine.pool_size", lambda serving: 1)
    monkeypatch.setattr("serve.brief.MOST_S", 10.0)  # the test's machine may be slow
    watched = Watched(tiny_text_package(tmp_path / "package").path)
    yield watched
    watched.engine.close()


def test_many_short_texts_in_one_body_go_to_the_thread(text: Watched) -> None:
    async def scenario() -> None:
        gate = Gate(8, 30)
        await text.ask(gate)
        await text.ask(gate, json.dumps({"inputs": ["a", "b"], "top_k": 2}).encode())
        text.threads.clear()
        await text.ask(gate, json.dumps({"inputs": ["a", "b", "c", "d"], "top_k": 2}).encode())

    asyncio.run(scenario())
    assert text.threads
    assert not any(text.threads)


def test_after_a_first_one_a_text_alone_is_answered_by_the_loop_and_as_by_a_thread(text: Watched) -> None:
    async def scenario() -> list[Any]:
        gate = Gate(8, 30)
        return [await text.ask(gate) for _ in range(3)]

    first, *others = asyncio.run(scenario())
    assert text.threads == [False, True, True]
    assert others == [first, first]


def test_those_that_come_together_are_left_to_the_thread(text: Watched) -> None:
    async def scenario() -> None:
        gate = Gate(8, 30)
        await text.ask(gate)
        await asyncio.gather(*(text.ask(gate) for _ in range(4)))

    asyncio.run(scenario())
    assert text.threads == [False] * 5


def test_a_long_body_is_left_to_the_thread(text: Watched) -> None:
    async def scenario() -> None:
        gate = Gate(8, 30)
        for spaces in (0, MOST_BYTES, 0):
            await text.ask(gate, BODY + b" " * spaces)

    asyncio.run(scenario())
    assert text.threads == [False, False, True]


def test_a_loop_that_answers_refuses_all_the_same(text: Watched) -> None:
    async def scenario() -> None:
        gate = Gate(8, 30)
        await text.ask(gate)
        with pytest.raises(Exception, match="JSON"):
            await text.ask(gate, b"{")

    asyncio.run(scenario())


def test_with_two_threads_they_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.engine.pool_size", lambda serving: 2)
    monkeypatch.setattr("serve.brief.MOST_S", 10.0)
    watched = Watched(tiny_text_package(tmp_path / "package").path)

    async def scenario() -> None:
        gate = Gate(8, 30)
        for _ in range(3):
            await watched.ask(gate)

    asyncio.run(scenario())
    watched.engine.close()
    assert watched.threads == [False] * 3


def test_images_are_never_brief(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.engine.pool_size", lambda serving: 1)
    engine = Engine(Predictor.load(tiny_package(tmp_path / "package").path), Limits())
    engine._brief.took(0.0)
    assert not asyncio.run(engine._brief.alone(b"few", lambda: True))
    engine.close()


def test_after_one_that_took_long_the_next_is_left_to_the_thread() -> None:
    brief = Brief(possible=True)
    for took, expected in ((MOST_S / 2, True), (MOST_S * 2, False), (MOST_S / 2, True)):
        brief.took(took)
        assert asyncio.run(brief.alone(b"", lambda: True)) is expected


def test_what_arrives_meanwhile_counts() -> None:
    async def scenario() -> bool:
        brief = Brief(possible=True)
        brief.took(0.0)
        others: list[None] = []
        asyncio.get_running_loop().call_soon(others.append, None)
        return await brief.alone(b"", lambda: not others)

    assert not asyncio.run(scenario())
