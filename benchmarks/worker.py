"""What a worker costs: its memory, how long a server takes from its start to its first answer, and to replace a worker.

    python -m benchmarks.worker RUN [--repeats 5] [--json FILE]

RUN is a run with a selection, or a model package. Memory is read after 200 requests to classify. On a machine that does
other work besides the seconds mean little; `cpu_s` is what all processes of the server had computed at first answer.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import statistics
import time
from pathlib import Path

import psutil
from PIL import Image

from benchmarks.spread import connections_by_worker
from compress.environment import hardware, versions
from serve.launch import ServerProcess, start
from serve.locate import find_package
from serve.manifest import ImagePreprocessing
from serve.package import Package, load_package

REQUESTS = 200
_MB = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="a run or a package")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write all figures")
    asked = parser.parse_args()
    package = load_package(find_package(asked.target))
    trials = []
    for _ in range(asked.repeats):
        trials.append(measure(package))
        print(json.dumps(trials[-1]), flush=True)
    medians = {name: round(statistics.median(trial[name] for trial in trials), 3) for name in trials[0]}
    print(f"median of {len(trials)}: {json.dumps(medians)}")
    if asked.json is not None:
        content = {"package": package.name, "size_bytes": package.size_bytes, "n": len(trials), "median": medians}
        content |= {"trials": trials, "hardware": hardware(), "versions": versions()}
        asked.json.write_text(json.dumps(content, indent=1, default=str) + "\n")


def measure(package: Package) -> dict[str, float]:
    """One server with one worker: `ready_s` and `back_s` in seconds of the clock, memory in MB (1,000,000 bytes)."""
    began = time.perf_counter()
    with start(package.path) as server:
        ready = time.perf_counter() - began
        body = _request(package)
        _classify(server, body)
        first = time.perf_counter() - began
        everyone = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        cpu = sum(sum(process.cpu_times()[:2]) for process in everyone)
        for _ in range(REQUESTS):
            _classify(server, body)
        worker = _worker(server)
        memory = worker.memory_full_info()
        worker.kill()
        killed = time.perf_counter()
        _classify(server, body)
        back = time.perf_counter() - killed
    figures = {"ready_s": ready, "first_answer_s": first, "cpu_s": cpu, "back_s": back}
    figures |= {"rss_mb": memory.rss / _MB, "pss_mb": memory.pss / _MB, "private_mb": memory.uss / _MB}
    return {name: round(value, 3) for name, value in figures.items()}


def _worker(server: ServerProcess) -> psutil.Process:
    assert len(connections_by_worker(server.port, server.pid)) == 1, "LIMBECK_WORKERS or serving.json ask for several"
    return next(
        process
        for process in psutil.Process(server.pid).children(recursive=True)
        if any(c.status == psutil.CONN_LISTEN and c.laddr.port == server.port for c in process.net_connections("tcp"))
    )


def _request(package: Package) -> bytes:
    """A text of 20 words, or an image of the size that the model takes."""
    preprocessing = package.manifest.preprocessing
    if not isinstance(preprocessing, ImagePreprocessing):
        return json.dumps({"inputs": ["an honest film that knows what it wants to say " * 2]}).encode()
    height, width = preprocessing.size
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 64).convert(preprocessing.color).save(buffer, "PNG")
    return json.dumps({"inputs": [base64.b64encode(buffer.getvalue()).decode()]}).encode()


def _classify(server: ServerProcess, body: bytes) -> None:
    """Ask until it is answered: while no worker is there, requests wait in the listener's queue, or are cut off."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        try:
            connection.request("POST", "/classify", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            assert response.status == 200, content
            return
        except (OSError, http.client.HTTPException):
            time.sleep(0.01)
        finally:
            connection.close()


if __name__ == "__main__":
    main()
