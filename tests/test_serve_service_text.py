"""A text package behind a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from helpers import SERVER_LIMITS, TEXT_LABELS, Served, colored, multipart, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.runner import scores

MAX_ITEMS, MAX_CHARS = int(SERVER_LIMITS["LIMBECK_MAX_ITEMS"]), int(SERVER_LIMITS["LIMBECK_MAX_TEXT_CHARS"])
ITEMS = [*texts(30), "Ünïcode 世界".encode(), b"very good " * 60]
STRINGS = [item.decode() for item in ITEMS]


@pytest.fixture(scope="module")
def client(served_text: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served_text.url, timeout=20) as client:
        yield client


def _error(response: httpx.Response) -> dict[str, str]:
    """The error of a response, which must be in the one form."""
    assert sorted(response.json()["error"]) == ["code", "hint", "message", "request_id"]
    error: dict[str, str] = response.json()["error"]
    return error


def _post_to(served: Served, body: bytes) -> httpx.Response:
    return httpx.post(f"{served.url}/classify", content=body, headers={"Content-Type": "application/json"})


def _post(client: httpx.Client, body: bytes, kind: str = "application/json") -> httpx.Response:
    return client.post("/classify", content=body, headers={"Content-Type": kind})


def _matches(answer: dict[str, Any], served: Served, items: list[bytes]) -> None:
    """Every label and every score is the predictor's own."""
    assert answer["model"] == {"id": served.model_id, "name": "tiny-text"}
    expected = scores(served.predictor, items)
    for prediction, row in zip(answer["predictions"], expected, strict=True):
        got = {named["label"]: named["score"] for named in prediction["top_k"]}
        assert np.allclose([got[label] for label in TEXT_LABELS], row, atol=1e-6)
        assert prediction["label"] == TEXT_LABELS[int(row.argmax())]


@pytest.mark.parametrize("path", ["/classify", "/predict"])
def test_texts_are_classified(client: httpx.Client, served_text: Served, path: str) -> None:
    response = client.post(path, json={"inputs": STRINGS, "top_k": 3})
    assert response.status_code == 200
    _matches(response.json(), served_text, ITEMS)
    cut = [prediction.get("truncated") for prediction in response.json()["predictions"]]
    assert cut == [None] * (len(ITEMS) - 1) + [True]


def test_bentomls_own_client(served_text: Served) -> None:
    import bentoml

    with bentoml.SyncHTTPClient(served_text.url) as bento:
        _matches(bento.predict(inputs=STRINGS, top_k=3), served_text, ITEMS)
        with pytest.raises(bentoml.exceptions.BentoMLException, match="empty_input"):
            bento.predict(inputs=[" "])


def test_other_bodies_are_refused_with_the_right_one(client: httpx.Client) -> None:
    form, form_kind = multipart(("files", b"a text"))
    bodies = [
        (form, form_kind),
        (colored(1, 2, 3), "image/png"),
        (b"a", "application/octet-stream"),
        (b"a", "text/plain"),
    ]
    for body, kind in bodies:
        response = _post(client, body, kind)
        assert response.status_code == 415
        assert _error(response)["code"] == "unsupported_media_type"
        assert 'application/json, {"inputs": ["a text", ...], "top_k": 3}' in _error(response)["hint"]


def test_a_base64_string_is_a_text_like_any_other(client: httpx.Client) -> None:
    assert client.post("/classify", json={"inputs": ["iVBORw0KGgo=", "/etc/passwd"]}).status_code == 200


def test_bad_texts_beside_good_ones(client: httpx.Client) -> None:
    body = b'{"inputs": ["", "good", "\\ud800", "' + b"x" * (MAX_CHARS + 1) + b'", "a\\u0000b", " \\n "], "top_k": 1}'
    response = _post(client, body)
    assert response.status_code == 200
    found = [entry.get("error", {}).get("code", "answered") for entry in response.json()["predictions"]]
    assert found == ["empty_input", "answered", "not_text", "text_too_long", "answered", "empty_input"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"inputs": [""]}', 422, "empty_input"),
        (b'{"inputs": [" \\t\\u3000", "x"], "top_k": 9}', 422, "bad_top_k"),
        (b'{"inputs": ["\\udfff"]}', 422, "not_text"),
        (json.dumps({"inputs": ["x" * (MAX_CHARS + 1)]}).encode(), 413, "text_too_long"),
        (json.dumps({"inputs": ["é" * (MAX_CHARS + 1)] * 2}).encode(), 413, "text_too_long"),
        (json.dumps({"inputs": ["x"] * (MAX_ITEMS + 1)}).encode(), 413, "too_many_inputs"),
        (b'{"inputs": "a text"}', 422, "bad_inputs"),
        (b'{"inputs": [["a", "text"]]}', 422, "bad_inputs"),
        (b'{"texts": ["a text"]}', 422, "unknown_key"),
        (b'{"inputs": ["caf\xe9"]}', 400, "bad_json"),
        ('{"inputs": ["a text"]}'.encode("utf-16"), 400, "bad_json"),
        (b'{"inputs": ["a\x00b"]}', 400, "bad_json"),  # in JSON, a control character is escaped
        (b"a text", 400, "bad_json"),
        (b"", 400, "empty_body"),
    ],
)
def test_a_wrong_body(client: httpx.Client, body: bytes, status: int, code: str) -> None:
    response = _post(client, body)
    assert (response.status_code, _error(response)["code"]) == (status, code)


def test_the_largest_text_is_read(client: httpx.Client) -> None:
    for text in ("x" * MAX_CHARS, "世" * MAX_CHARS, " " * (MAX_CHARS - 1) + "x", "a" + "\u0301" * (MAX_CHARS - 1)):
        began = time.monotonic()
        assert client.post("/classify", json={"inputs": [text]}).status_code == 200
        assert time.monotonic() - began < 5


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=30), min_size=1, max_size=5))
def test_any_texts_are_answered_one_by_one(served_text: Served, inputs: list[str]) -> None:
    """Surrogates and control characters included, as JSON's own escapes."""
    body = json.dumps({"inputs": inputs})
    response = _post_to(served_text, body.encode())
    sent = json.loads(body)["inputs"]  # where two halves of a pair have become one character
    readable = [bool(text.strip()) and not any("\ud800" <= mark <= "\udfff" for mark in text) for text in sent]
    assert response.status_code == (200 if any(readable) else 422)
    if any(readable):
        assert ["label" in prediction for prediction in response.json()["predictions"]] == readable


def test_the_model_says_how_to_send_and_its_limits(client: httpx.Client, served_text: Served) -> None:
    model = client.get("/model").json()
    assert (model["id"], model["task"], model["labels"]) == (served_text.model_id, "text", list(TEXT_LABELS))
    assert model["send"] == {"application/json": '{"inputs": ["a text", ...], "top_k": 3}'}
    assert model["limits"]["max_text_chars"] == MAX_CHARS


def test_nothing_speaks_of_images_alone(client: httpx.Client) -> None:
    assert "image" not in client.get("/openapi.json").text.replace("image/svg+xml", "")  # the page's icon
    assert client.get("/").status_code == 200
    assert "Classifies images or texts" in client.get("/schema.json").text


def test_the_log_has_no_traceback(client: httpx.Client, served_text: Served) -> None:
    _post(client, b'{"inputs": ["\\ud800"]}')
    assert "Traceback" not in served_text.log.read_text()
