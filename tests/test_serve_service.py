"""The real `bentoml serve` process over HTTP."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from helpers import LABELS, SERVER_LIMITS, Served, colored, encoded, multipart, tiny_package
from PIL import Image

from serve.runner import scores

MAX_BODY, MAX_ITEMS, MAX_CONCURRENCY = (
    int(SERVER_LIMITS[f"LIMBECK_MAX_{name}"]) for name in ("BODY_BYTES", "ITEMS", "CONCURRENCY")
)
ITEMS = [colored(*rgb) for rgb in np.random.default_rng(0).integers(0, 256, (20, 3)).tolist()]
RED = colored(255, 0, 0)


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=20) as client:
        yield client


def _error(response: httpx.Response) -> dict[str, str]:
    """The error of a response, which must be in the one form."""
    assert sorted(response.json()["error"]) == ["code", "hint", "message", "request_id"]
    error: dict[str, str] = response.json()["error"]
    assert response.headers["x-request-id"] == error["request_id"]
    return error


def _text(item: bytes) -> str:
    return base64.b64encode(item).decode()


def _matches(answer: dict[str, Any], served: Served, items: list[bytes]) -> None:
    """Every label and every score is the predictor's own."""
    assert answer["model"] == {"id": served.model_id, "name": "tiny"}
    expected = scores(served.predictor, items)
    assert len(answer["predictions"]) == len(items)
    for prediction, row in zip(answer["predictions"], expected, strict=True):
        got = {named["label"]: named["score"] for named in prediction["top_k"]}
        assert np.allclose([got[label] for label in LABELS], row, atol=1e-6)
        assert prediction["label"] == LABELS[int(row.argmax())]
        assert prediction["score"] == got[prediction["label"]]


def test_json(client: httpx.Client, served: Served) -> None:
    response = client.post("/classify", json={"inputs": [_text(item) for item in ITEMS], "top_k": 4})
    assert response.status_code == 200
    _matches(response.json(), served, ITEMS)


def test_multipart(client: httpx.Client, served: Served) -> None:
    files = [("files", (f"{i}.png", item, "image/png")) for i, item in enumerate(ITEMS)]
    response = client.post("/classify", files=files, data={"top_k": "4"})
    assert response.status_code == 200
    _matches(response.json(), served, ITEMS)


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/octet-stream"])
def test_one_raw_image(client: httpx.Client, served: Served, kind: str) -> None:
    response = client.post("/classify?top_k=4", content=ITEMS[0], headers={"Content-Type": kind})
    assert response.status_code == 200
    _matches(response.json(), served, ITEMS[:1])


def test_bentomls_own_client(served: Served) -> None:
    import bentoml

    with bentoml.SyncHTTPClient(served.url) as bento:
        _matches(bento.predict(inputs=[_text(item) for item in ITEMS], top_k=4), served, ITEMS)
        assert len(bento.predict(inputs=[_text(RED)])["predictions"][0]["top_k"]) == 3
        with pytest.raises(bentoml.exceptions.BentoMLException, match="bad_base64"):
            bento.predict(inputs=["/etc/passwd"])


@pytest.mark.parametrize("path", ["/classify", "/predict"])
def test_no_string_is_a_path_or_an_address(client: httpx.Client, tmp_path: Path, path: str) -> None:
    image = tmp_path / "red.png"
    image.write_bytes(RED)
    for text in (str(image), f"file://{image}", "http://127.0.0.1:9/x.png", "/etc/hostname123"):
        response = client.post(path, json={"inputs": [text]})
        assert response.status_code == 422
        assert _error(response)["code"] in {"bad_base64", "not_an_image"}


def test_bad_items_beside_good_ones(client: httpx.Client) -> None:
    response = client.post("/classify", json={"inputs": ["?", _text(RED), _text(b"nonsense")], "top_k": 1})
    assert response.status_code == 200
    first, second, third = response.json()["predictions"]
    assert (first["error"]["code"], second["label"], third["error"]["code"]) == ("bad_base64", "red", "not_an_image")


def test_only_bad_items(client: httpx.Client) -> None:
    response = client.post("/classify", json={"inputs": [_text(b"nonsense"), "?"]})
    assert response.status_code == 422
    assert _error(response)["code"] == "not_an_image"


def test_an_image_too_large_to_decode(client: httpx.Client) -> None:
    bomb = encoded(Image.new("1", (8000, 8000)))
    response = client.post("/classify", content=bomb, headers={"Content-Type": "image/png"})
    assert response.status_code == 413
    assert _error(response)["code"] == "too_many_pixels"


def test_too_many_items(client: httpx.Client) -> None:
    body, kind = multipart(*[("files", RED)] * (MAX_ITEMS + 1))
    for response in (
        client.post("/classify", json={"inputs": [_text(RED)] * (MAX_ITEMS + 1)}),
        client.post("/classify", content=body, headers={"Content-Type": kind}),
    ):
        assert response.status_code == 413
        assert _error(response)["code"] == "too_many_inputs"
    assert client.post("/classify", json={"inputs": [_text(RED)] * MAX_ITEMS}).status_code == 200


@pytest.mark.parametrize("top_k", [0, -1, 5, 10**9])
def test_top_k_out_of_range(client: httpx.Client, top_k: int) -> None:
    response = client.post("/classify", json={"inputs": [_text(RED)], "top_k": top_k})
    assert response.status_code == 422
    assert _error(response)["code"] == "bad_top_k"


def test_a_large_body_is_refused_before_it_is_parsed(client: httpx.Client) -> None:
    for extra in (1, 3 * MAX_BODY):
        response = client.post(
            "/classify", content=b"x" * (MAX_BODY + extra), headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 413
        assert _error(response)["code"] == "body_too_large"
    exact = json.dumps({"inputs": [_text(RED)]}).encode().ljust(MAX_BODY)
    response = client.post("/classify", content=exact, headers={"Content-Type": "application/json"})
    assert response.status_code == 200


def test_a_large_body_in_chunks_is_refused_too(client: httpx.Client) -> None:
    chunks = (b"x" * 10_000 for _ in range(MAX_BODY // 10_000 + 5))
    response = client.post("/classify", content=chunks, headers={"Content-Type": "image/png"})
    assert response.status_code == 413
    assert _error(response)["code"] == "body_too_large"


@contextlib.contextmanager
def _connection(served: Served, head: str, body: bytes = b"") -> Iterator[socket.socket]:
    """A raw connection on which the beginning of a request has been sent."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=15) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n" + body)
        yield connection


def _status_and_code(connection: socket.socket) -> tuple[int, str]:
    response = b""
    while chunk := connection.recv(65536):
        response += chunk
    head, _, body = response.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


POST = "POST /classify HTTP/1.1\nHost: x\nContent-Type: image/png\n"


def test_a_body_that_does_not_arrive_is_not_waited_for(served: Served) -> None:
    began = time.monotonic()
    with _connection(served, f"{POST}Content-Length: 100\n", b"half") as connection:
        assert _status_and_code(connection) == (408, "slow_body")
    assert time.monotonic() - began < 6


def test_an_endless_body_is_answered_and_cut_off(served: Served) -> None:
    with _connection(served, f"{POST}Transfer-Encoding: chunked\n") as connection:
        sent, chunk = 0, b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        with contextlib.suppress(ConnectionError):
            while sent < 400 * MAX_BODY:
                sent += connection.send(chunk)
    assert sent < 80 * MAX_BODY  # what is read and thrown away, and what the system's own buffers hold


def test_a_client_that_goes_away_leaves_the_server_well(served: Served, client: httpx.Client) -> None:
    for _ in range(2 * MAX_CONCURRENCY):
        with _connection(served, f"{POST}Content-Length: 1000\n", b"half"):
            pass
    deadline = time.monotonic() + 5
    while (status := client.post("/classify", json={"inputs": [_text(RED)]}).status_code) == 429:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert status == 200


def test_half_sent_bodies_leave_places_for_whole_ones_and_health_is_answered(
    served: Served, client: httpx.Client
) -> None:
    with contextlib.ExitStack() as stack:
        halves = [
            stack.enter_context(_connection(served, f"{POST}Content-Length: 1000\nConnection: close\n", sent))
            for sent in (b"", b"half", b"h") * MAX_CONCURRENCY
        ]
        deadline = time.monotonic() + 10
        while client.post("/classify", json={"inputs": [_text(RED)]}).status_code == 429:  # some have a moment
            assert time.monotonic() < deadline
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 200
        answers = [_status_and_code(connection) for connection in halves]
    waited_for = answers.count((408, "slow_body"))
    assert 1 <= waited_for <= MAX_CONCURRENCY // 2
    assert answers.count((429, "too_many_requests")) == len(halves) - waited_for


def test_the_model_and_its_limits(client: httpx.Client, served: Served) -> None:
    model = client.get("/model").json()
    assert (model["id"], model["name"], model["labels"]) == (served.model_id, "tiny", list(LABELS))
    assert (model["limits"]["max_items"], model["limits"]["max_body_bytes"]) == (MAX_ITEMS, MAX_BODY)


def test_health_metrics_and_the_page(client: httpx.Client, served: Served) -> None:
    for path in ("/livez", "/readyz", "/healthz", "/schema.json", "/", "/playground/main.js"):
        assert client.get(path).status_code == 200, path
    client.get("/some/random/address")
    client.post("/classify", json={"inputs": [_text(RED)]})
    metrics = client.get("/metrics").text
    assert f'limbeck_requests_total{{model="{served.model_id}",status="200"}}' in metrics
    assert 'phase="compute"' in metrics
    assert 'le="0.0001"' in metrics
    assert "random" not in metrics
    assert "playground" not in metrics


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/classify", 405), ("DELETE", "/livez", 405), ("GET", "/schema.json/", 404)],
)
def test_errors_of_routing(client: httpx.Client, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    _error(response)


def test_the_log_has_no_traceback(client: httpx.Client, served: Served) -> None:
    client.post("/classify", content=b"nonsense", headers={"Content-Type": "image/png"})
    assert "Traceback" not in served.log.read_text()


def test_the_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from serve.service import _workers

    package = tiny_package(tmp_path / "package").path
    (package / "serving.json").write_text('{"threads": 1, "workers": 3}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIMBECK_WORKERS", raising=False)
    monkeypatch.setenv("LIMBECK_PACKAGE", str(package))
    assert _workers() == 3
    monkeypatch.setenv("LIMBECK_WORKERS", "2")  # the environment goes before the package
    assert _workers() == 2
    monkeypatch.delenv("LIMBECK_WORKERS")
    monkeypatch.delenv("LIMBECK_PACKAGE")  # nothing to serve
    assert _workers() == 1
