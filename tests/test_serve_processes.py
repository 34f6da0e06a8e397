"""What becomes of a server's processes: they drain, come back when they die, and share their connections."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest
from helpers import colored, tiny_package

from benchmarks.spread import connections_by_worker
from serve.errors import UserError
from serve.launch import ServerProcess, start
from serve.limits import drain_seconds
from serve.supervise import Patience

RED = colored(255, 0, 0)


@pytest.fixture(scope="module", params=[2, 1])
def workers(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def server(workers: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server as in a container, where BentoML leaves dead workers dead. The last test ends it."""
    package = tiny_package(tmp_path_factory.mktemp("processes") / "package")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LIMBECK_WORKERS", str(workers))
        environment.setenv("LIMBECK_DRAIN_SECONDS", "1.5")
        environment.setenv("BENTOML_CONTAINERIZED", "true")
        with start(package.path) as server:
            _wait_for_workers(server, workers)
            yield server


def _wait_for_workers(server: ServerProcess, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(connections_by_worker(server.port, server.pid)) < count:
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.1)


def _workers(server: ServerProcess) -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process(server.pid).children()
        if any(c.laddr.port == server.port for c in process.net_connections("tcp") if c.laddr)
    ]


def _get(server: ServerProcess, path: str) -> httpx.Response:
    return httpx.get(server.url + path, timeout=20)


def _classify(server: ServerProcess) -> httpx.Response:
    return httpx.post(server.url + "/classify", content=RED, headers={"Content-Type": "image/png"}, timeout=20)


def _half_sent(server: ServerProcess) -> http.client.HTTPConnection:
    """A request under way: the worker has read its head, and waits for the second half of its body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("POST", "/classify")
    connection.putheader("Content-Type", "image/png")
    connection.putheader("Content-Length", str(len(RED)))
    connection.endheaders(RED[:20])
    return connection


def _spread(server: ServerProcess, workers: int, connections: int = 6) -> None:
    """Send requests over kept-alive connections until each worker holds its share of them; none may fail."""
    wanted = [connections // workers] * workers
    end, balanced, failed = time.monotonic() + 30, threading.Event(), []

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=20) as client:
            while time.monotonic() < end and not balanced.is_set():
                if client.get("/livez").status_code != 200:
                    failed.append("not 200")
            done.wait()

    def asking() -> None:
        try:
            ask()
        except httpx.HTTPError as error:
            failed.append(repr(error))
            done.abort()

    done = threading.Barrier(connections + 1)
    threads = [threading.Thread(target=asking) for _ in range(connections)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end and not failed and connections_by_worker(server.port, server.pid) != wanted:
        time.sleep(0.05)
    found = connections_by_worker(server.port, server.pid)
    balanced.set()
    with contextlib.suppress(threading.BrokenBarrierError):
        done.wait()
    for thread in threads:
        thread.join()
    assert not failed
    assert found == wanted


def test_connections_that_are_kept_alive_spread_over_the_workers(server: ServerProcess, workers: int) -> None:
    _spread(server, workers)


def test_a_killed_worker_comes_back_and_takes_only_its_own_requests_with_it(
    server: ServerProcess, workers: int
) -> None:
    under_way = [_half_sent(server) for _ in range(8)]
    time.sleep(0.3)  # until they are accepted
    victim = _workers(server)[0]
    theirs = {c.raddr.port for c in victim.net_connections("tcp") if c.raddr}
    victim.kill()
    answered = set()
    for connection in under_way:
        assert connection.sock is not None
        port = connection.sock.getsockname()[1]
        try:
            connection.send(RED[20:])
            assert connection.getresponse().status == 200
            answered.add(port)
        except (OSError, http.client.HTTPException):
            assert port in theirs
        finally:
            connection.close()
    assert answered.isdisjoint(theirs)
    assert _classify(server).status_code == 200  # by another, or once it is back
    _spread(server, workers)
    assert victim.pid not in {process.pid for process in _workers(server)}


def test_a_server_that_is_told_to_end_drains(server: ServerProcess, workers: int) -> None:
    under_way = _half_sent(server)
    assert _get(server, "/readyz").status_code == 200
    os.kill(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + 1.4
    while (ready := _get(server, "/readyz")).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert ready.status_code == 503
    assert ready.json()["error"]["code"] == "draining"
    assert ready.headers["connection"] == "close"
    late = _classify(server)  # sent by a load balancer that has not looked yet
    assert late.status_code == 200
    assert late.headers["connection"] == "close"

    _wait_until_refused(server)
    under_way.send(RED[20:])  # what was under way before all this is still answered
    assert under_way.getresponse().status == 200
    under_way.close()
    ended = os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0)


def _wait_until_refused(server: ServerProcess) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)
    pytest.fail("the listener stays open")


class _Deaths:
    """A server with one worker, and a clock; `dies` says whether its successor may start in that moment."""

    def __init__(self) -> None:
        self.now, self.pid = 0.0, 0
        self.patience = Patience(lambda: self.now)

    def dies(self, age: float) -> bool:
        self.pid += 1
        return self.looks(age)

    def looks(self, age: float) -> bool:
        return self.patience.may_replace({self.pid: age}, {self.pid})


def test_workers_that_die_are_replaced_at_once() -> None:
    server = _Deaths()
    for _ in range(20):
        assert server.dies(age=60)
    for _ in range(3):
        assert server.dies(age=1)


def test_workers_that_die_as_they_start_are_replaced_ever_later() -> None:
    server, waits = _Deaths(), []
    for _ in range(10):
        began, ready = server.now, server.dies(age=1)
        while not ready:
            server.now += 0.5
            ready = server.looks(age=1)
        waits.append(server.now - began)
    assert waits == [0, 0, 0, 1, 2, 4, 8, 16, 30, 30]
    assert server.patience.may_replace({99: 11.0}, set())  # one that lives
    assert server.dies(age=1)


@pytest.mark.parametrize("text", ["-1", "soon", "nan", "1e9"])
def test_the_time_to_drain_is_checked(text: str) -> None:
    with pytest.raises(UserError, match="LIMBECK_DRAIN_SECONDS"):
        drain_seconds({"LIMBECK_DRAIN_SECONDS": text})


def test_the_time_to_drain() -> None:
    assert drain_seconds({"LIMBECK_DRAIN_SECONDS": "0"}) == 0
    assert drain_seconds({"LIMBECK_DRAIN_SECONDS": "12.5"}) == 12.5
    assert drain_seconds({}) > 0
