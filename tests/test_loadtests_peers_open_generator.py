"""The independent open-loop generator, against servers that are made up."""

from __future__ import annotations

import base64
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from loadtests.peers.open_generator import measure, poisson

RIGHT = [{"label": "a", "score": 1.0, "top_k": [{"label": "a", "score": 1.0}]}]
BODY = json.dumps({"predictions": RIGHT}).encode()
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


@contextmanager
def server(stall_s: float = 0.0, response: bytes = RESPONSE) -> Iterator[int]:
    """Its port. It answers at once, but for one stall of all connections half a second after its first request."""
    began = threading.Event()
    stalled_until = [0.0]
    lock = threading.Lock()

    def stall() -> None:
        time.sleep(0.5)
        stalled_until[0] = time.perf_counter() + stall_s

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(65536):
                with lock:
                    if not began.is_set():
                        began.set()
                        threading.Thread(target=stall, daemon=True).start()
                time.sleep(max(0.0, stalled_until[0] - time.perf_counter()))
                self.request.sendall(response)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening.server_address[1]
        listening.shutdown()
        thread.join()


def send(tmp_path: Path, port: int, **changes: Any) -> dict[str, Any]:
    file = tmp_path / "requests.json"
    request = base64.b64encode(b"POST /classify HTTP/1.1\r\nContent-Length: 1\r\n\r\nx").decode()
    file.write_text(json.dumps([{"request": request, "predictions": RIGHT}]))
    test = {"port": port, "requests": str(file), "connections": 4, "rate": 50.0, "seconds": 1.5, "warm_up": 0.1}
    return measure({**test, "seed": 1, **changes})


def test_every_request_that_was_due_is_answered_and_checked(tmp_path: Path) -> None:
    with server() as port:
        seen = send(tmp_path, port)
    assert seen["due"] == len(seen["latencies_ms"]) > 30
    assert seen["failed"] == 0
    with server(response=RESPONSE.replace(b'"a"', b'"b"')) as port:
        seen = send(tmp_path, port, seconds=0.4)
    assert seen["failed"] == seen["due"] > 0
    assert "expected" in seen["first_problem"]


def test_a_stall_is_in_the_latency_of_all_that_were_due_in_it(tmp_path: Path) -> None:
    with server(stall_s=0.5) as port:
        seen = send(tmp_path, port)
    slow = [latency for latency in seen["latencies_ms"] if latency > 100]
    assert len(slow) > 10  # four connections, of which a closed loop would show four slow requests
    assert max(slow) > 350


def test_arrivals_are_poisson_and_the_same_for_a_seed() -> None:
    schedule = poisson(100.0, 200.0, 7, seed=3)
    assert schedule == poisson(100.0, 200.0, 7, seed=3)
    assert schedule != poisson(100.0, 200.0, 7, seed=4)
    assert len(schedule) == pytest.approx(20_000, rel=0.05)
    times = [due for due, _ in schedule]
    gaps = [after - before for before, after in pairwise(times)]
    assert mean(gaps) == pytest.approx(0.01, rel=0.05)
    assert mean(gap**2 for gap in gaps) == pytest.approx(2 * 0.01**2, rel=0.1)  # as an exponential has it
    assert {at for _, at in schedule} == set(range(7))
