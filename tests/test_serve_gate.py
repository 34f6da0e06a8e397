from __future__ import annotations

import asyncio

import pytest

from serve.errors import RequestError
from serve.gate import Gate


def test_one_more_than_fits_is_refused_at_once_and_a_place_that_is_left_is_given_again() -> None:
    moves: list[int] = []
    gate = Gate(2, 30, moves.append)

    async def scenario() -> None:
        with gate.enter(), gate.enter():
            with pytest.raises(RequestError) as refused:
                gate.enter()
            assert (refused.value.status, refused.value.headers) == (429, [(b"retry-after", b"1")])
        with gate.enter(), gate.enter():
            pass

    asyncio.run(scenario())
    assert moves == [1, 1, -1, -1] * 2


def test_it_says_how_many_are_inside_and_when_it_is_full() -> None:
    gate = Gate(2, 30)

    async def scenario() -> list[tuple[int, bool]]:
        with gate.enter():
            one = (gate.inside, gate.full)
            with gate.enter():
                two = (gate.inside, gate.full)
            return [one, two, (gate.inside, gate.full)]

    assert asyncio.run(scenario()) == [(1, False), (2, True), (1, False)]


def test_whoever_stays_too_long_is_cancelled_and_gives_the_place_free() -> None:
    gate = Gate(1, 0.01)

    async def scenario() -> bool:
        with pytest.raises(RequestError) as late, gate.enter():
            await asyncio.sleep(30)
        assert (late.value.status, late.value.code) == (504, "timeout")
        with gate.enter():
            return True

    assert asyncio.run(scenario())


@pytest.mark.parametrize(
    "raised", [ValueError("ours"), RequestError(422, "bad", "a message"), TimeoutError("a socket's")]
)
def test_other_errors_pass_as_they_are_and_give_the_place_free(raised: Exception) -> None:
    gate = Gate(1, 30)

    async def scenario() -> None:
        for _ in range(2):
            with pytest.raises(type(raised)) as passed, gate.enter():
                raise raised
            assert passed.value is raised

    asyncio.run(scenario())


def test_it_says_when_more_than_half_of_the_places_wait_for_bodies() -> None:
    gate = Gate(4, 30)
    for _ in range(2):
        with gate.unread() as first, gate.unread() as second, gate.unread() as third:
            assert (first, second, third) == (False, False, True)
    with Gate(1, 30).unread() as only:  # a server that takes one request waits for its body, of course
        assert not only
