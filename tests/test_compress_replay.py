from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import numpy as np
import pytest
from helpers import LABELS, TEXT_LABELS, Served, colored, encoded, texts
from PIL import Image

from compress.replay import BATCH, ReplayResult, _batches, replay
from serve.errors import UserError
from serve.runner import scores

ITEMS = [colored(*rgb) for rgb in np.random.default_rng(3).integers(0, 256, (70, 3)).tolist()]
ROUTES = ["json", "multipart", "raw", "at-once"]


@pytest.fixture(scope="module")
def expected(served: Served) -> np.ndarray:
    return scores(served.predictor, ITEMS)


def test_the_same_model_passes_by_every_route(served: Served, expected: np.ndarray) -> None:
    seen: list[tuple[str, int, int]] = []
    result = replay(ITEMS, expected, LABELS, served.url, served.model_id, lambda *step: seen.append(step))
    assert result.ok
    assert result.n == 70
    assert list(result.routes) == ROUTES
    assert [route.compared for route in result.routes.values()] == [70] * 4
    assert max(route.max_abs for route in result.routes.values()) <= 1e-5
    assert [step for step in seen if step[0] == "json"] == [("json", 32, 70), ("json", 64, 70), ("json", 70, 70)]
    assert seen[-1] == ("at-once", 70, 70)


def test_one_score_that_is_a_little_off_is_found(served: Served, expected: np.ndarray) -> None:
    planted = expected.copy()
    planted[41, 0] += 1e-4
    result = replay(ITEMS, planted, LABELS, served.url, served.model_id)
    assert not result.ok
    for route in result.routes.values():
        assert (route.compared, route.label_differences, route.score_differences, route.errors) == (70, 0, 1, 0)
        assert route.max_abs == pytest.approx(1e-4, rel=0.01)
        assert "item 41" in route.first_problem


def test_one_other_label_is_found(served: Served, expected: np.ndarray) -> None:
    planted = expected.copy()
    planted[7] = np.roll(planted[7], 1)
    result = replay(ITEMS, planted, LABELS, served.url, served.model_id)
    assert not result.ok
    assert [route.label_differences for route in result.routes.values()] == [1] * 4


def test_an_item_that_the_server_cannot_read_is_an_error(served: Served, expected: np.ndarray) -> None:
    items = [*ITEMS[:9], b"nonsense", *ITEMS[10:]]
    result = replay(items, expected, LABELS, served.url, served.model_id)
    assert not result.ok
    for route in result.routes.values():
        assert (route.compared, route.errors, route.label_differences) == (69, 1, 0)
        assert "not_an_image" in route.first_problem


def test_nothing_replayed_is_not_ok(served: Served) -> None:
    assert not replay([], np.empty((0, 4), np.float32), LABELS, served.url, served.model_id).ok
    assert not ReplayResult(3).ok


def test_another_model_is_refused(served: Served, expected: np.ndarray) -> None:
    with pytest.raises(UserError, match="answers with another model") as caught:
        replay(ITEMS, expected, LABELS, served.url, "0123456789abcdef")
    assert caught.value.hint


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid:3000"])
def test_a_server_that_is_not_there_is_refused(expected: np.ndarray, url: str) -> None:
    with pytest.raises(UserError, match="no answer from") as caught:
        replay(ITEMS, expected, LABELS, url, "id")
    assert "limbeck serve" in caught.value.hint


@pytest.mark.parametrize("url", ["127.0.0.1:3000", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", ""])
def test_what_is_not_a_url_is_refused(expected: np.ndarray, url: str) -> None:
    with pytest.raises(UserError, match="is not the URL of a server"):
        replay(ITEMS, expected, LABELS, url, "id")


class _Stub(BaseHTTPRequestHandler):
    """A server that says it has the model, and answers as `replies` says."""

    replies: ClassVar[dict[str, Any]] = {}
    protocol_version = "HTTP/1.1"

    def _answer(self, content: Any) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer(self.replies["/model"])

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(self.replies["/classify"] if "/crowd" not in self.replies else self._of_crowd())

    def _of_crowd(self) -> Any:
        """What "/crowd" holds where another request is under way."""
        crowd = self.replies["inside"]
        crowd.append(self)
        time.sleep(0.02)
        reply = self.replies["/crowd" if len(crowd) > 1 else "/classify"]
        crowd.remove(self)
        return reply

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, Any]]]:
    limits = {"max_items": 64, "max_body_bytes": 10**6, "max_concurrency": 128}
    model = {"id": "id", "task": "image", "labels": list(LABELS), "limits": limits}
    monkeypatch.setattr(_Stub, "replies", {"/model": model})
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Stub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", _Stub.replies
    server.shutdown()
    thread.join()
    server.server_close()


PREDICTION = {"label": "red", "score": 1.0, "top_k": [{"label": "red", "score": 1.0}]}


@pytest.mark.parametrize(
    "reply",
    [
        b"not JSON",
        [],
        {"predictions": []},
        {"model": {"id": "id"}, "predictions": [{"label": "red"}]},
        {"model": {"id": "id"}, "predictions": ["red"]},
        {"model": {"id": "id"}, "predictions": [PREDICTION]},
    ],
)
def test_answers_that_are_not_what_was_asked_for_never_pass(
    stub: tuple[str, dict[str, Any]], expected: np.ndarray, reply: Any
) -> None:
    url, replies = stub
    replies["/classify"] = reply
    result = replay(ITEMS[:1], expected[:1], LABELS, url, "id")
    assert not result.ok
    assert all(route.errors or route.score_differences for route in result.routes.values())


def test_answers_that_are_mixed_up_where_several_are_under_way_are_found(stub: tuple[str, dict[str, Any]]) -> None:
    url, replies = stub
    named = [{"label": label, "score": float(label == "red")} for label in LABELS]
    right = {"label": "red", "score": 1.0, "top_k": named}
    replies["/classify"] = {"model": {"id": "id"}, "predictions": [right]}
    replies["/crowd"] = {"model": {"id": "id"}, "predictions": [{**right, "label": "green"}]}
    replies["inside"] = []
    expected = np.array([[float(label == "red") for label in LABELS]] * 24)
    items = [b"x" * 600_000] * 24  # one in a body, whatever the route
    result = replay(items, expected, LABELS, url, "id")
    found = {name: route.label_differences for name, route in result.routes.items()}
    assert {**found, "at-once": 0} == dict.fromkeys(ROUTES, 0)
    assert found["at-once"] > 0


def test_a_server_that_changes_its_model_midway_is_noticed(
    stub: tuple[str, dict[str, Any]], expected: np.ndarray
) -> None:
    url, replies = stub
    replies["/classify"] = {"model": {"id": "newer"}, "predictions": [PREDICTION]}
    with pytest.raises(UserError, match="changed to model newer"):
        replay(ITEMS[:1], expected[:1], LABELS, url, "id")


@pytest.mark.parametrize("reply", [b"<html>", [], {"id": "id"}, {"labels": []}])
def test_a_server_of_another_kind_is_refused(
    stub: tuple[str, dict[str, Any]], expected: np.ndarray, reply: Any
) -> None:
    url, replies = stub
    replies["/model"] = reply
    with pytest.raises(UserError, match="not with a model"):
        replay(ITEMS[:1], expected[:1], LABELS, url, "id")


def test_batches_fit_the_servers_limits() -> None:
    sizes = [10, 10, 5000, 10, 10, 10, 10]
    assert list(_batches(sizes, 3, 10**6)) == [range(3), range(3, 6), range(6, 7)]
    assert list(_batches(sizes, BATCH, 2000)) == [range(2), range(2, 3), range(3, 7)]
    assert list(_batches(sizes, BATCH, 1)) == [range(row, row + 1) for row in range(7)]
    assert list(_batches([], 3, 1)) == []


def test_large_items_are_sent_in_bodies_that_the_server_takes(served: Served) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 120, 120, 3), dtype=np.uint8)
    items = [encoded(Image.fromarray(pixels)) for pixels in noise]
    assert sum(len(item) for item in items) > 256 * 1024  # more than one body may hold
    assert replay(items, scores(served.predictor, items), LABELS, served.url, served.model_id).ok


TEXTS = [
    *texts(60),
    "Привет, 世界!".encode(),
    b'a "good" \\ film',
    b"very good " * 30,
    b"\0 good",
    "\U0001f600".encode(),
]


def test_texts_pass_one_by_one_and_in_batches(served_text: Served) -> None:
    expected = scores(served_text.predictor, TEXTS)
    result = replay(TEXTS, expected, TEXT_LABELS, served_text.url, served_text.model_id)
    assert result.ok, result
    assert list(result.routes) == ["json-single", "json-batch", "at-once"]
    assert [route.compared for route in result.routes.values()] == [65] * 3

    planted = expected.copy()
    planted[41, 0] += 1e-4
    planted[7] = np.roll(planted[7], 1)
    result = replay(TEXTS, planted, TEXT_LABELS, served_text.url, served_text.model_id)
    assert not result.ok
    for route in result.routes.values():
        assert (route.compared, route.label_differences, route.score_differences) == (65, 1, 2)
        assert "item 7" in route.first_problem


def test_long_texts_are_sent_in_bodies_that_the_server_takes(served_text: Served) -> None:
    items = [("ж" * 1900).encode()] * 70  # as JSON 11 KB each, and a body may have 256 KB
    expected = scores(served_text.predictor, items)
    assert replay(items, expected, TEXT_LABELS, served_text.url, served_text.model_id).ok
    items[3] = b"x" * 2001
    result = replay(items, expected, TEXT_LABELS, served_text.url, served_text.model_id)
    for route in result.routes.values():
        assert (route.compared, route.errors) == (69, 1)
        assert "text_too_long" in route.first_problem
