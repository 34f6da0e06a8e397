"""The bytes of a request's body: counted, waited for so long, and not read on when they are too many."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import pytest

from serve.bodies import read_body
from serve.errors import RequestError
from serve.limits import Limits

LIMITS = Limits(max_body_bytes=1000, body_seconds=1)


def _read(chunks: Iterable[bytes | float | None], limits: Limits = LIMITS, **headers: str) -> tuple[bytes, int]:
    """Read a body that arrives in `chunks` (a number is a pause in seconds, None the end of the connection).

    Returns it with how many chunks were taken.
    """
    pending = list(chunks)
    taken = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        while pending and isinstance(pending[0], float):
            await asyncio.sleep(pending.pop(0))
        taken += 1
        if not pending or pending[0] is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": pending.pop(0), "more_body": bool(pending)}

    raw = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return asyncio.run(read_body(receive, raw, limits)), taken


def _read_refusal(*args: Any, **kwargs: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        _read(*args, **kwargs)
    return caught.value


def test_a_body_is_put_together() -> None:
    assert _read([b"a", b"", b"bc"])[0] == b"abc"
    assert _read([b"x" * 1000], content_length="1000")[0] == b"x" * 1000
    assert _read([b""])[0] == b""


@pytest.mark.parametrize("declared", ["1001", "0", "5", "99999999999999999999", "nonsense"])
def test_bytes_are_counted_whatever_was_declared(declared: str) -> None:
    error = _read_refusal([b"x" * 501, b"x" * 500], content_length=declared)
    assert (error.status, error.code) == (413, "body_too_large")
    assert error.headers == ()  # all was read, so the connection can go on


def test_an_endless_body_is_not_read_to_its_end() -> None:
    def endless() -> Iterable[bytes]:
        for _ in range(10_000):
            yield b"x" * 100

    error = _read_refusal(endless())
    assert error.status == 413
    assert error.headers == ((b"connection", b"close"),)


def test_a_sender_who_asks_first_is_told_before_sending() -> None:
    error = _read_refusal([5.0, b"never asked for"], content_length="2000", expect="100-continue")
    assert (error.status, error.headers) == (413, ((b"connection", b"close"),))


def test_a_slow_body_is_not_waited_for() -> None:
    began = time.monotonic()
    error = _read_refusal([b"x", 30.0, b"y"])
    assert (error.status, error.code) == (408, "slow_body")
    assert time.monotonic() - began < 5


def test_a_dripping_body_is_not_waited_for_either() -> None:
    error = _read_refusal([piece for _ in range(100) for piece in (b"x", 0.05)])
    assert error.status == 408


def test_a_connection_that_closes_early_is_an_incomplete_body() -> None:
    assert _read_refusal([b"x", None]).code == "incomplete_body"
