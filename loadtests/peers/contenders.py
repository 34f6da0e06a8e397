"""The servers that are compared, each started on a port of its own with the same package."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loadtests.peers import answer
from serve.errors import UserError
from serve.launch import start
from serve.locate import ENV

OURS, BARE, BENTOML, LITSERVE = "limbeck", "bare Starlette", "BentoML, documented", "LitServe"
_ROOT = Path(__file__).resolve().parents[2]
_READY_S, _END_S, _LOG_LINES = 60, 10, 15
Form = Literal["whole", "form"]  # of an image's body: the image as it is, or a multipart form; texts are always JSON


@dataclass(frozen=True)
class Contender:
    """A server that is compared; `command` is what starts it on a port, None for our own."""

    name: str
    form: Form
    command: Callable[[int], list[str]] | None = None


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    port: int
    pid: int  # of the process that started all the others


def contenders(model: answer.Model, litserve: Path | None) -> list[Contender]:
    """Ours and the others; LitServe where there is a Python that has it."""
    service = f"loadtests.peers.bentoml_service:{model.task.capitalize()}"
    found = [
        Contender(OURS, "whole"),
        Contender(BARE, "whole", _uvicorn),
        Contender(BENTOML, "form", lambda port: [sys.executable, "-m", "bentoml", "serve", service, "-p", str(port)]),
    ]
    if litserve is not None:
        command = [str(litserve), "-m", "loadtests.peers.litserve_api"]
        found.append(Contender(LITSERVE, "form", lambda port: [*command, str(port)]))
    return found


def _uvicorn(port: int) -> list[str]:
    options = ["--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    return [sys.executable, "-m", "uvicorn", "loadtests.peers.bare:app", *options]


@contextlib.contextmanager
def serving(contender: Contender, package: Path, folder: Path) -> Iterator[Running]:
    """A contender that serves `package` for as long as the block runs. Raises UserError."""
    if contender.command is None:
        with start(package) as server:
            yield Running(server.port, server.pid)
        return
    port = _free_port()
    home = folder / contender.name.replace(" ", "-")
    home.mkdir()
    environ = {**os.environ, ENV: str(package), "PYTHONPATH": str(_ROOT), "BENTOML_HOME": str(home)}
    with _process(contender.command(port), environ, home / "server.log") as process:
        _await_port(contender, process, port, home / "server.log")
        yield Running(port, process.pid)


@contextlib.contextmanager
def _process(command: list[str], environ: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env={**environ, "BENTOML_DO_NOT_TRACK": "true"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and all that it started: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_END_S)
    process.wait()


def _await_port(contender: Contender, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
    raise UserError(f"{contender.name} did not start", f"its last words:\n{tail}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
