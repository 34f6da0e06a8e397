"""Load a running server with the items of a run's test split, and check every answer against what was measured.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:3000
    locust -f loadtests/locustfile.py --host http://127.0.0.1:3000 --headless -u 4 -r 4 -t 10s

The items come from `loadtest/payloads.json` in the run that LIMBECK_RUN names, else in the newest run that has one. A
wrong or failed answer counts as a failure, and any failure makes a headless test end with status 1.
Closed loop: each user sends its next request when the last is answered, so the rate follows the server.
"""

from __future__ import annotations

import base64
import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant, task

PAYLOADS = Path("loadtest") / "payloads.json"
TOLERANCE = 1e-5  # of a score, as in `limbeck verify`
BATCH = 8
_BOUNDARY = "limbeck-8f14e45fceea167a5a36dedd4bea2543"


@dataclass(frozen=True)
class Item:
    """One input in the forms that requests take, and the answer that was measured for it."""

    text: str  # what JSON holds: a text itself, an image as base64
    content: bytes  # of an image
    label: str
    score: float


def find_payloads() -> Path:
    """The payload file to use; ends the process with a message if there is none."""
    if named := os.environ.get("LIMBECK_RUN"):
        file = Path(named) / PAYLOADS
        if file.is_file():
            return file
        raise SystemExit(f"error: {file} is not there\nhint: LIMBECK_RUN must name the directory of a completed run")
    files = sorted(Path("runs").glob(f"*/{PAYLOADS}"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise SystemExit(
            f"error: no run under {Path('runs').resolve()} has a {PAYLOADS}\n"
            "hint: run `limbeck run compress/recipes/digits.toml` first, or set LIMBECK_RUN to a run's directory"
        )
    return files[-1]


def load_payloads(file: Path) -> tuple[str, str, list[Item]]:
    """The model's id, its task, and the items; ends the process with a message if the file is not as expected."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        task = content["task"]
        if task not in ("image", "text"):
            raise ValueError(f"its task is {task!r}")
        items = [
            Item(item["input"], _content(item["input"], task), item["label"], float(item["score"]))
            for item in content["items"]
        ]
        if not items:
            raise ValueError("it has no items")
        return content["model_id"], task, items
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SystemExit(f"error: cannot use {file}: {error!r}\nhint: run the recipe again") from None


def _content(text: str, task: str) -> bytes:
    return text.encode("utf-8") if task == "text" else base64.b64decode(text, validate=True)


MODEL_ID, TASK, ITEMS = load_payloads(find_payloads())


class Client(FastHttpUser):
    """Sends single inputs mostly, and batches now and then, as JSON."""

    abstract = True
    wait_time = constant(0)

    @task(4)
    def json_single(self) -> None:
        self._json("json 1", random.sample(ITEMS, 1))

    @task(2)
    def json_batch(self) -> None:
        self._json(f"json {BATCH}", random.choices(ITEMS, k=BATCH))

    def _json(self, name: str, items: list[Item]) -> None:
        body = json.dumps({"inputs": [item.text for item in items]}).encode()
        self._send(name, items, body, "application/json")

    def _send(self, name: str, items: list[Item], body: bytes, content_type: str) -> None:
        with self.client.post(
            "/classify", data=body, headers={"Content-Type": content_type}, name=name, catch_response=True
        ) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}: {(response.text or '')[:200]}")
            elif problem := wrong_answer(response.json(), items):
                response.failure(problem)


class TextClient(Client):
    """Texts, which only JSON carries."""

    abstract = TASK != "text"


class ImageClient(Client):
    """Images, as multipart and raw besides."""

    abstract = TASK != "image"

    @task(1)
    def multipart(self) -> None:
        items = random.choices(ITEMS, k=2)
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="image"\r\n\r\n'.encode()
        body = b"".join(head + item.content + b"\r\n" for item in items) + f"--{_BOUNDARY}--\r\n".encode()
        self._send("multipart 2", items, body, f"multipart/form-data; boundary={_BOUNDARY}")

    @task(3)
    def raw(self) -> None:
        item = random.choice(ITEMS)
        self._send("raw 1", [item], item.content, "application/octet-stream")


def wrong_answer(answer: Any, items: list[Item]) -> str:
    """What is wrong with an answer; empty if it is right."""
    try:
        if answer["model"]["id"] != MODEL_ID:
            return f"answered by model {answer['model']['id']}, expected {MODEL_ID}"
        for prediction, item in zip(answer["predictions"], items, strict=True):
            if prediction["label"] != item.label:
                return f"label {prediction['label']!r}, expected {item.label!r}"
            if not abs(prediction["score"] - item.score) <= TOLERANCE:
                return f"score {prediction['score']}, expected {item.score}"
    except (KeyError, TypeError, ValueError) as error:
        return f"the answer is not in the expected form: {error!r}"
    return ""
