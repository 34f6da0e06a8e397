"""Replay the test split over HTTP: what the server answers must be what was measured.

N items, K classes.
"""

from __future__ import annotations

import base64
import http.client
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from serve.errors import UserError, said
from serve.tokens import authorization

TOLERANCE = 1e-5  # of a score; the same graph on another processor may round its sums differently
BATCH = 32
TOGETHER = 8  # requests under way at once: a server that batches then has something to batch, and answers to mix up
_TIMEOUT_S = 120
_ENVELOPE = 256  # bytes around each item of a multipart body, more than there are
_DESCRIBED = {"id", "task", "labels", "limits"}  # what we need of GET /model

Progress = Callable[[str, int, int], None]  # route, items done, items in all


@dataclass
class RouteResult:
    """What came back by one kind of body."""

    compared: int = 0
    label_differences: int = 0
    score_differences: int = 0  # items with a score further than TOLERANCE from the expected
    max_abs: float = 0.0  # the largest difference of any score
    errors: int = 0  # items without an answer
    first_problem: str = ""

    def agrees(self, n: int) -> bool:
        """All of `n` items came back as expected."""
        return self.compared == n and not (self.label_differences or self.score_differences or self.errors)


@dataclass
class ReplayResult:
    """A replay of `n` items by each route."""

    n: int
    routes: dict[str, RouteResult] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Every item was answered by every route, with the expected label and scores."""
        return self.n > 0 and bool(self.routes) and all(route.agrees(self.n) for route in self.routes.values())


_Send = Callable[["_Server", Sequence[bytes], int], tuple[int, Any]]
_Route = tuple[str, _Send, list[range], int]  # its name, how a body is sent, the rows in each, how many at once


def replay(
    items: Sequence[bytes],
    expected: np.ndarray,
    labels: Sequence[str],
    url: str,
    model_id: str,
    progress: Progress | None = None,
) -> ReplayResult:
    """Send every item by each route, and compare all scores with `expected`, float32 [N, K].

    Images go as JSON, as multipart and raw; texts as JSON, one by one and several together; and single ones of either
    in several requests at once.
    Raises UserError if the server cannot be reached, or answers with another model than `model_id`.
    """
    assert expected.shape == (len(items), len(labels)), "one row for each item, one column for each label"
    servers = [_Server(url) for _ in range(TOGETHER)]
    try:
        model = _check_model(servers[0], model_id, labels)
        result = ReplayResult(len(items))
        for name, send, chunks, at_once in _routes(items, model["task"], model["limits"]):
            route = result.routes[name] = RouteResult()
            bodies = [[items[row] for row in rows] for rows in chunks]
            for rows, (status, answer) in zip(chunks, _ask(servers[:at_once], send, bodies, len(labels)), strict=True):
                _compare(route, rows, status, answer, expected, labels, model)
                if progress is not None:
                    progress(name, rows.stop, len(items))
    finally:
        for server in servers:
            server.close()
    return result


def _ask(
    servers: Sequence[_Server], send: _Send, bodies: Sequence[Sequence[bytes]], top_k: int
) -> Iterator[tuple[int, Any]]:
    """The answers in the order of `bodies`, of which as many are under way as there are connections."""
    if len(servers) == 1:
        yield from (send(servers[0], body, top_k) for body in bodies)
        return
    free: SimpleQueue[_Server] = SimpleQueue()
    for server in servers:
        free.put(server)

    def ask(body: Sequence[bytes]) -> tuple[int, Any]:
        server = free.get()
        try:
            return send(server, body, top_k)
        finally:
            free.put(server)

    with ThreadPoolExecutor(len(servers)) as pool:
        yield from pool.map(ask, bodies)


class _Server:
    """One kept connection. By http.client, since 10,000 small requests took it 15 s, and httpx 21 (2 cores)."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"{url!r} is not the URL of a server", "expected for example http://127.0.0.1:3000")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        try:
            self._connection = kind(parts.hostname, parts.port, timeout=_TIMEOUT_S)
        except ValueError as error:
            raise UserError(f"{url!r} is not the URL of a server: {error}", "a port is a number up to 65535") from None
        self._prefix = parts.path

    def request(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> tuple[int, Any]:
        """Status and parsed JSON (None if it was not JSON). Raises UserError if no answer came."""
        headers = authorization() | ({"Content-Type": content_type} if content_type else {})
        try:
            self._connection.request(method, self._prefix + path, body, headers)
            response = self._connection.getresponse()
            status, content = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            hint = "is the server running? `limbeck serve` starts one; without --url, `limbeck verify` starts its own"
            raise UserError(f"no answer from {self.url}: {said(error)}", hint) from None
        try:
            return status, json.loads(content)
        except ValueError:
            return status, None

    def close(self) -> None:
        self._connection.close()


def _check_model(server: _Server, model_id: str, labels: Sequence[str]) -> dict[str, Any]:
    """What the server says of its model, once it is known to be the right one."""
    status, model = server.request("GET", "/model")
    if status != 200 or not isinstance(model, dict) or not model.keys() >= _DESCRIBED:
        hint = "is it a limbeck server?" if status != 401 else "set LIMBECK_TOKEN to a token that the server takes"
        raise UserError(f"{server.url} answered GET /model with {status}, not with a model", hint)
    if model["id"] != model_id or model["labels"] != list(labels):
        raise UserError(
            f"{server.url} answers with another model: {model['id']}, expected {model_id}",
            "serve the package that is to be verified, or leave --url out",
        )
    return model


def _routes(items: Sequence[bytes], task: str, limits: dict[str, int]) -> Iterator[_Route]:
    """Each kind of body, by name: how it is sent, and the rows that go into one."""
    singles = [range(row, row + 1) for row in range(len(items))]
    sizes = [_text_size(item) if task == "text" else len(item) * 4 // 3 for item in items]
    batches = list(_batches(sizes, min(BATCH, limits["max_items"]), limits["max_body_bytes"]))
    at_once = max(1, min(TOGETHER, limits["max_concurrency"] // 2))  # half: more might be refused
    if task == "text":
        yield "json-single", _send_texts, singles, 1
        yield "json-batch", _send_texts, batches, 1
        yield "at-once", _send_texts, singles, at_once
    else:
        yield "json", _send_json, batches, 1
        yield "multipart", _send_multipart, batches, 1
        yield "raw", _send_raw, singles, 1
        yield "at-once", _send_raw, singles, at_once


def _text_size(item: bytes) -> int:
    return len(json.dumps(item.decode("utf-8")))


def _batches(sizes: Sequence[int], max_items: int, max_bytes: int) -> Iterator[range]:
    """Consecutive rows that fit into one body of any kind; an item too large for any goes alone, to be refused.

    `sizes` are the bytes of each item in the longest of its forms.
    """
    start, room = 0, max_bytes
    for row, size in enumerate(sizes):
        cost = _ENVELOPE + size
        if row > start and (row - start == max_items or cost > room):
            yield range(start, row)
            start, room = row, max_bytes
        room -= cost
    if start < len(sizes):
        yield range(start, len(sizes))


def _send_texts(server: _Server, items: Sequence[bytes], top_k: int) -> tuple[int, Any]:
    body = json.dumps({"inputs": [item.decode("utf-8") for item in items], "top_k": top_k}).encode()
    return server.request("POST", "/classify", body, "application/json")


def _send_json(server: _Server, items: Sequence[bytes], top_k: int) -> tuple[int, Any]:
    inputs = [base64.b64encode(item).decode("ascii") for item in items]
    body = json.dumps({"inputs": inputs, "top_k": top_k}).encode()
    return server.request("POST", "/classify", body, "application/json")


def _send_multipart(server: _Server, items: Sequence[bytes], top_k: int) -> tuple[int, Any]:
    boundary = secrets.token_hex(16)
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="image"\r\n\r\n'.encode()
    tail = f'--{boundary}\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n{top_k}\r\n--{boundary}--\r\n'.encode()
    body = b"".join(head + item + b"\r\n" for item in items) + tail
    return server.request("POST", "/classify", body, f"multipart/form-data; boundary={boundary}")


def _send_raw(server: _Server, items: Sequence[bytes], top_k: int) -> tuple[int, Any]:
    return server.request("POST", f"/classify?top_k={top_k}", items[0], "application/octet-stream")


def _compare(
    route: RouteResult,
    rows: range,
    status: int,
    answer: Any,
    expected: np.ndarray,
    labels: Sequence[str],
    model: dict[str, Any],
) -> None:
    predictions = answer.get("predictions") if isinstance(answer, dict) else None
    if status != 200 or not isinstance(predictions, list) or len(predictions) != len(rows):
        route.errors += len(rows)
        route.first_problem = route.first_problem or f"item {rows.start}: status {status}, {_error_of(answer)}"
        return
    if answer["model"]["id"] != model["id"]:
        raise UserError(f"the server changed to model {answer['model']['id']} during the replay", "run it again")
    for row, prediction in zip(rows, predictions, strict=True):
        try:
            _compare_item(route, row, prediction, expected[row], labels, model.get("abstain_below"))
        except (KeyError, TypeError):  # an error in the place of a prediction
            route.errors += 1
            route.first_problem = route.first_problem or f"item {row}: {_error_of(prediction)}"


def _compare_item(
    route: RouteResult,
    row: int,
    prediction: dict[str, Any],
    expected: np.ndarray,
    labels: Sequence[str],
    abstain_below: float | None,
) -> None:
    """Compare one item with what was `expected`, [K]: its scores, and its label with whether it abstains."""
    scores = {named["label"]: named["score"] for named in prediction["top_k"]}
    got = np.array([scores.get(label, np.nan) for label in labels])
    difference = float(np.abs(got - expected).max())
    label = labels[int(expected.argmax())]
    wrong_label = prediction["label"] != label or _wrongly_marked(prediction, expected, abstain_below)
    wrong_score = not difference <= TOLERANCE  # a score that is missing is NaN, and wrong
    route.compared += 1
    route.label_differences += wrong_label
    route.score_differences += wrong_score
    route.max_abs = float(np.fmax(route.max_abs, difference))
    if wrong_label or wrong_score:
        problem = f"item {row}: {prediction['label']!r} for {label!r}, scores up to {difference:.2g} off"
        route.first_problem = route.first_problem or problem


def _wrongly_marked(prediction: dict[str, Any], expected: np.ndarray, abstain_below: float | None) -> bool:
    """Whether a prediction is marked as abstained where its measured score says otherwise, or not where it should."""
    score, marked = float(expected.max()), prediction.get("abstained", False)
    if abstain_below is None or abs(score - abstain_below) > TOLERANCE:
        return bool(marked != (abstain_below is not None and score < abstain_below))
    return bool(marked != (prediction["score"] < abstain_below))  # so near that the rounding of scores decides


def _error_of(answer: Any) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    return f"{error.get('code')}: {error.get('message')}" if isinstance(error, dict) else "not in the expected form"
