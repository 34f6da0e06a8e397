"""What tests start ends with them."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator

import pytest
from forks import running

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def idle() -> Iterator[list[multiprocessing.context.ForkProcess]]:
    """Two processes that would do nothing for long."""
    children = [FORK.Process(target=time.sleep, args=(60,)) for _ in (0, 1)]
    yield children
    for child in children:
        child.kill()


def test_processes_end_with_what_started_them_also_where_that_is_stopped(
    idle: list[multiprocessing.context.ForkProcess],
) -> None:
    with pytest.raises(KeyboardInterrupt), running(idle):
        raise KeyboardInterrupt
    assert [child.exitcode for child in idle] == [-signal.SIGKILL] * 2


def test_processes_that_would_wait_forever_are_ended(idle: list[multiprocessing.context.ForkProcess]) -> None:
    with running(idle, seconds=0.1):
        for child in idle:
            child.join(30)
            assert child.exitcode == -signal.SIGKILL
