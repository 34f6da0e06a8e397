from __future__ import annotations

import threading
import time

import pytest

from serve.errors import RequestError
from serve.registry import Registry


@pytest.fixture(autouse=True)
def _no_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one garbage collection takes in a server takes long in a process with all that the tests have imported."""
    monkeypatch.setattr("serve.registry.release_memory", lambda: None)


class Engine:
    def __init__(self) -> None:
        self.closed = threading.Event()
        self.times = 0

    def close(self) -> None:
        self.times += 1
        self.closed.set()


def test_a_request_borrows_the_default_or_what_it_names() -> None:
    first, second = Engine(), Engine()
    registry = Registry({"first": first, "second": second}, "second")
    with registry.borrow() as engine:
        assert engine is second
    with registry.borrow("first") as engine:
        assert engine is first
    with pytest.raises(RequestError) as caught, registry.borrow("frist"):
        pass
    assert (caught.value.status, caught.value.code, caught.value.hint) == (
        404,
        "unknown_model",
        "did you mean 'first'?",
    )


def test_what_is_replaced_is_closed_after_its_last_request_and_once() -> None:
    old, new, other = Engine(), Engine(), Engine()
    registry = Registry({"main": old, "other": other}, "main")
    with registry.borrow() as one:
        with registry.borrow() as two:
            registry.swap({"main": new, "other": other}, "main")
            assert one is two is old
            with registry.borrow() as three:
                assert three is new
        time.sleep(0.02)
        assert not old.closed.is_set()
    assert old.closed.wait(5)
    registry.swap({"main": new}, "main")
    assert other.closed.wait(5)  # idle: at once
    registry.close()
    assert (old.times, other.times, new.times) == (1, 1, 1)


def test_closing_closes_what_is_still_in_use() -> None:
    old, new = Engine(), Engine()
    registry = Registry({"main": old}, "main")
    with registry.borrow():
        registry.swap({"main": new}, "main")
        registry.close()
        assert (old.times, new.times) == (1, 1)
    time.sleep(0.02)
    assert old.times == 1


def test_an_engine_under_another_name_goes_on() -> None:
    engine = Engine()
    registry = Registry({"old": engine}, "old")
    registry.swap({"new": engine}, "new")
    time.sleep(0.02)
    assert engine.times == 0
    with pytest.raises(ValueError, match="the default 'old'"):
        registry.swap({"new": engine}, "old")


def test_no_engine_is_closed_in_use_however_they_are_swapped() -> None:
    registry = Registry({"main": Engine()}, "main")
    wrong: list[str] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            with registry.borrow() as engine:
                if engine.closed.is_set():
                    wrong.append("closed in use")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    replaced = []
    for _ in range(40):
        replaced.append(registry.current[0]["main"])
        registry.swap({"main": Engine()}, "main")
    ended.set()
    for thread in threads:
        thread.join(10)
    assert not wrong
    assert all(engine.closed.wait(5) for engine in replaced)
    assert {engine.times for engine in replaced} == {1}
