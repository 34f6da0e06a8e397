"""Threads for the event loop: results, errors, cancelled work, and the end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from serve.pool import Pool


def test_results_and_errors_come_back_from_another_thread() -> None:
    async def ask() -> tuple[str, BaseException]:
        pool = Pool(2, "test")
        name = await pool.run(lambda: threading.current_thread().name)
        with pytest.raises(ZeroDivisionError) as caught:
            await pool.run(lambda: 1 // 0)
        assert await pool.run(lambda: "still there") == "still there"
        pool.close()
        return name, caught.value

    name, error = asyncio.run(ask())
    assert name.startswith("test_")
    assert str(error) == "integer division or modulo by zero"


def test_as_much_runs_at_once_as_there_are_threads() -> None:
    async def ask() -> int:
        pool = Pool(3, "test")
        together = threading.Barrier(3, timeout=10)
        await asyncio.gather(*(pool.run(together.wait) for _ in range(3)))  # a fourth thread would break it
        pool.close()
        return together.n_waiting

    assert asyncio.run(ask()) == 0


def test_what_is_cancelled_before_its_turn_is_never_done() -> None:
    done: list[str] = []

    async def ask() -> None:
        pool = Pool(1, "test")
        begun, go = threading.Event(), threading.Event()
        first = pool.run(lambda: (begun.set(), go.wait(10), done.append("first")))
        await asyncio.to_thread(begun.wait, 10)
        second = pool.run(lambda: done.append("second"))
        third = pool.run(lambda: done.append("third"))
        second.cancel()
        first.cancel()  # it has begun, so it is done, and its result dropped
        go.set()
        await third
        pool.close()
        assert first.cancelled()

    asyncio.run(ask())
    assert done == ["first", "third"]


def test_closing_waits_for_what_has_begun_and_cancels_the_rest() -> None:
    begun, go, done = threading.Event(), threading.Event(), []

    async def ask() -> tuple[bool, bool]:
        pool = Pool(1, "test")
        first = pool.run(lambda: (begun.set(), go.wait(10), done.append("first")))
        second = pool.run(lambda: done.append("second"))
        await asyncio.to_thread(begun.wait, 10)
        threading.Timer(0.05, go.set).start()
        pool.close()
        assert done == ["first"]
        await asyncio.sleep(0)
        await first
        with pytest.raises(RuntimeError, match="closed"):
            pool.run(lambda: None)
        return first.done(), second.cancelled()

    assert asyncio.run(ask()) == (True, True)


def test_a_loop_that_has_ended_does_not_end_the_thread() -> None:
    pool = Pool(1, "test")
    go = threading.Event()

    async def leave() -> None:
        pool.run(lambda: go.wait(10))
        await asyncio.sleep(0.01)

    async def ask() -> str:
        return await pool.run(lambda: "yes")

    asyncio.run(leave())
    go.set()
    assert asyncio.run(ask()) == "yes"
    pool.close()
