"""Processes that are forked from one which has imported all of `limbeck run`: that takes longer than a tiny run."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["compress.cli", "compress.pipeline", "train.trainer", "compress.quantize.precisions"])
SECONDS = 400  # on a machine that is busy with other things; ten by itself


@dataclass(frozen=True)
class Ended:
    """The exit code of a process, negative for a signal, and what it said on stderr."""

    code: int
    said: str


def limbeck(arguments: Sequence[str], stderr: Connection | Path | None = None) -> None:
    """What a process does that is the command; `stderr` is where it says something, if not where it did before."""
    from compress import cli

    if stderr is not None:
        say_into(stderr)
    os.environ["COLUMNS"] = "200"
    sys.argv = ["limbeck", *arguments]
    cli.main()


def say_into(stderr: Connection | Path) -> None:
    """From here on, what this process says on stderr goes there."""
    file = os.open(stderr, os.O_WRONLY | os.O_CREAT) if isinstance(stderr, Path) else stderr.fileno()
    os.dup2(file, 2)


@contextmanager
def running(children: Sequence[BaseProcess], seconds: float = SECONDS) -> Iterator[None]:
    """Start them; none is left when the block ends, however it does, and none waits or works for longer than this.

    At the end of pytest its process waits for each that still runs, without an end.
    """

    def end() -> None:
        for child in started:
            child.kill()  # nothing happens where it has ended

    started: list[BaseProcess] = []
    watch = threading.Timer(seconds, end)
    try:
        for child in children:
            child.start()
            started.append(child)
        watch.start()
        yield
    finally:
        watch.cancel()
        end()
        for child in started:
            child.join()


def free_port() -> str:
    """A port of this machine on which nobody listens now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def be_one_of_two(rank: int, port: str) -> None:
    """Make this process one of two that train together."""
    sizes = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ.update({**sizes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": ""})
    torch.set_num_threads(1)


def in_two_processes(place: Path, target: Callable[..., None], *arguments: Any) -> list[Ended]:
    """Two processes that do the same together; like a launcher, end the other where one fails or time is over."""
    port, said = free_port(), [place / f"said-{rank}" for rank in (0, 1)]
    children = [FORKS.Process(target=_one_of_two, args=(rank, port, said[rank], target, arguments)) for rank in (0, 1)]
    with running(children):
        while {child.exitcode for child in children} in ({None}, {None, 0}):
            time.sleep(0.05)
        for child in children:
            child.terminate()
            child.join(30)
    return [Ended(child.exitcode or 0, file.read_text()) for child, file in zip(children, said, strict=True)]


def _one_of_two(rank: int, port: str, said: Path, target: Callable[..., None], arguments: Sequence[Any]) -> None:
    say_into(said)
    be_one_of_two(rank, port)
    target(*arguments)
