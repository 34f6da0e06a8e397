"""The whole attack on one server, and whether it came through: answers, memory, and scores as before."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.hostile.case import Case, dice
from benchmarks.hostile.documents import hostile_documents
from benchmarks.hostile.explore import explore
from benchmarks.hostile.files import encoded
from benchmarks.hostile.forms import hostile_forms
from benchmarks.hostile.images import hostile_images
from benchmarks.hostile.judge import Findings, ask_all
from benchmarks.hostile.wire import good_request, hostile_talks, talk_all

GROWTH_MB = 64.0  # the server may have so much more in memory after the attack than after the first half of it
_MB = 1024 * 1024


@dataclass(frozen=True)
class Plan:
    """How many requests of each kind; `largest` image in bytes, as it is sent."""

    seed: int = 0
    images: int = 2000
    documents: int = 2000
    forms: int = 200
    talks: int = 300
    examples: int = 100  # of each operation, good and bad
    largest: int = 16_000_000


@dataclass(frozen=True)
class Target:
    """A server that runs on loopback, with its processes and its log."""

    port: int
    pid: int
    log: Path
    task: str


def attack(target: Target, plan: Plan) -> dict[str, Any]:
    """All of `plan` against `target`: what came of each kind, and `complaints`, which should be none."""
    good = _good_answer(target)
    _part(target, plan, 2, ("images", "documents", "forms"))  # caches and pools fill up
    before = _memory_mb(target.pid)
    found = _part(target, plan, 1, ("images", "documents", "forms", "talks", "schemathesis"))
    after = _memory_mb(target.pid)
    complaints = [complaint for findings in found.values() for complaint in findings.complaints]
    if after - before > GROWTH_MB:
        complaints.append(f"the server has {after:.0f} MB in memory, after {before:.0f} MB")
    if _good_answer(target) != good:
        complaints.append("a good request is answered otherwise than before")
    if "Traceback" in target.log.read_text(errors="replace"):
        complaints.append(f"there is a traceback in {target.log}")
    kinds = {name: findings.as_json() for name, findings in found.items()}
    memory = {"before_mb": round(before, 1), "after_mb": round(after, 1)}
    return {"task": target.task, "seed": plan.seed, "kinds": kinds, "memory": memory, "complaints": complaints}


def _part(target: Target, plan: Plan, share: int, kinds: Iterable[str]) -> dict[str, Findings]:
    """One in `share` of the plan's requests of these kinds, from the beginning of each."""
    port, seed, task = target.port, plan.seed, target.task
    images = plan.images if task == "image" else 0
    steps: dict[str, tuple[int, Callable[[int], Findings]]] = {
        "images": (images, lambda count: ask_all(port, hostile_images(seed, count, plan.largest))),
        "documents": (plan.documents, lambda count: ask_all(port, hostile_documents(seed, count, task))),
        "forms": (plan.forms, lambda count: ask_all(port, hostile_forms(seed, count))),
        "talks": (
            plan.talks,
            lambda count: talk_all(port, hostile_talks(seed, count, *good_request(task, _picture()))),
        ),
        "schemathesis": (plan.examples, lambda count: explore(f"http://127.0.0.1:{port}", count, seed)),
    }
    wanted = {kind: steps[kind] for kind in kinds}
    return {kind: step(count // share) for kind, (count, step) in wanted.items() if count // share}


def _picture() -> bytes:
    from PIL import Image

    return encoded(Image.frombytes("RGB", (16, 16), dice(0, "good", 0).randbytes(768)), "PNG")


def _good_answer(target: Target) -> Any:
    """What the server says to a good request: its predictions, every digit of them."""
    inputs = ["a good film", "a bad one"] if target.task == "text" else [base64.b64encode(_picture()).decode()]
    case = Case("good", json.dumps({"inputs": inputs}).encode())
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
    try:
        connection.request("POST", case.path, case.body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"a good request is answered with {answer.status}: {content}")
    return content


def _memory_mb(pid: int) -> float:
    """Resident memory of the server and its workers."""
    server = psutil.Process(pid)
    return sum(process.memory_info().rss for process in [server, *server.children(recursive=True)]) / _MB
