from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from serve.deadline import deadline


def test_what_is_in_time_passes_and_what_is_late_is_a_timeout() -> None:
    async def scenario() -> list[str]:
        told = []
        with deadline(30):
            await asyncio.sleep(0)
            told.append("in time")
        try:
            with deadline(0.01):
                await asyncio.sleep(30)
        except TimeoutError:
            told.append("late")
        await asyncio.sleep(0.12)  # two looks: nothing is left to be cancelled
        return [*told, "goes on"]

    assert asyncio.run(scenario()) == ["in time", "late", "goes on"]


@pytest.mark.parametrize(("outer", "inner"), [(0.01, 30), (30, 0.01), (0.01, 0.01)])
def test_one_within_another(outer: float, inner: float) -> None:
    async def scenario() -> str:
        try:
            with deadline(outer):
                try:
                    with deadline(inner):
                        await asyncio.sleep(30)
                except TimeoutError:
                    return "inner"
        except TimeoutError:
            return "outer"
        return "none"

    assert asyncio.run(scenario()) == ("outer" if outer < inner else "inner") or outer == inner


def test_who_is_cancelled_from_outside_is_cancelled_and_not_late() -> None:
    async def scenario() -> None:
        async def work() -> None:
            with deadline(30):
                await asyncio.sleep(30)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_many_are_cancelled_each_at_its_own_time() -> None:
    async def one(seconds: float) -> bool:
        try:
            with deadline(seconds):
                await asyncio.sleep(0.2)
        except TimeoutError:
            return False
        return True

    async def scenario() -> list[bool]:
        return await asyncio.gather(*(one(0.01 if number % 2 else 30) for number in range(100)))

    assert asyncio.run(scenario()) == [number % 2 == 0 for number in range(100)]


def test_nothing_of_a_request_is_kept() -> None:
    class Kept:
        pass

    async def scenario() -> bool:
        async def work() -> weakref.ref[Kept]:
            kept = Kept()
            with deadline(30):
                await asyncio.sleep(0)
            return weakref.ref(kept)

        seen = await asyncio.create_task(work())
        gc.collect()
        return seen() is None

    assert asyncio.run(scenario())
