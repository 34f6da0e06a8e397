"""Which worker gets how many of a client's kept-alive connections.

    python -m benchmarks.spread RUN [--workers 2] [--connections 16] [--trials 9] [--seconds 2]

Each trial opens its connections at once, sends one request after another on each, and then counts who holds them. A
connection that the server closes is opened again, as HTTP clients do.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import threading
import time
from pathlib import Path

import psutil

from serve.launch import start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="a run or a package")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--trials", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each trial")
    asked = parser.parse_args()
    os.environ["LIMBECK_WORKERS"] = str(asked.workers)
    with start(asked.target) as server:
        time.sleep(3)  # ready means that one of them is
        for trial in range(asked.trials):
            held, opened, answered = _trial(server.port, server.pid, asked.connections, asked.seconds)
            line = {"trial": trial, "connections": held, "opened": opened, "requests": answered}
            print(json.dumps(line), flush=True)


def connections_by_worker(port: int, pid: int) -> list[int]:
    """How many connections to `port` each process below `pid` holds, most first; those without a listener left out."""
    held = []
    for process in psutil.Process(pid).children(recursive=True):
        states = [c.status for c in process.net_connections("tcp") if c.laddr and c.laddr.port == port]
        if psutil.CONN_LISTEN in states:
            held.append(states.count(psutil.CONN_ESTABLISHED))
    return sorted(held, reverse=True)


def _trial(port: int, pid: int, connections: int, seconds: float) -> tuple[list[int], int, int]:
    """Connections by worker at its end, how often one was opened, how many requests were answered."""
    end = time.monotonic() + seconds
    begin, done = threading.Barrier(connections), threading.Barrier(connections + 1)
    opened, answered = [0] * connections, [0] * connections

    def client(which: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        begin.wait()
        while time.monotonic() < end:
            opened[which] += connection.sock is None
            connection.request("GET", "/livez")
            connection.getresponse().read()
            answered[which] += 1
        if connection.sock is None:
            connection.connect()
        done.wait()
        done.wait()
        connection.close()

    threads = [threading.Thread(target=client, args=(which,)) for which in range(connections)]
    for thread in threads:
        thread.start()
    done.wait()
    held = connections_by_worker(port, pid)
    done.wait()
    for thread in threads:
        thread.join()
    return held, sum(opened), sum(answered)


if __name__ == "__main__":
    main()
