from __future__ import annotations

import base64
import json
import time
import tracemalloc
from typing import Any

import pytest
from helpers import multipart
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.bodies import Query, parse_query
from serve.errors import InputError, RequestError
from serve.limits import Limits
from serve.manifest import Task

LIMITS = Limits(max_body_bytes=1000, max_items=3, max_text_chars=20)


def _parse(
    content_type: str,
    body: bytes,
    query: str = "",
    limits: Limits = LIMITS,
    task: Task = "image",
    **headers: str,
) -> Query:
    raw = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return parse_query({b"content-type": content_type.encode(), **raw}, query.encode(), body, limits, task)


def _json(content: Any, task: Task = "image") -> Query:
    return _parse("application/json", json.dumps(content).encode(), task=task)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _refusal(*args: Any, **kwargs: Any) -> tuple[int, str]:
    with pytest.raises(RequestError) as caught:
        _parse(*args, **kwargs)
    assert caught.value.message
    assert len(caught.value.message + caught.value.hint) < 500
    return caught.value.status, caught.value.code


def test_the_kinds_of_body_mean_the_same() -> None:
    expected = Query([b"one"], 2)
    assert _json({"inputs": [_text(b"one")], "top_k": 2}) == expected
    body, kind = multipart(("files", b"one"), ("top_k", b"2"))
    assert _parse(kind, body) == expected
    for kind in ("image/png", "image/x-anything", "application/octet-stream", "IMAGE/PNG; q=1"):
        assert _parse(kind, b"one", "top_k=2") == expected


def test_order_is_kept_and_top_k_may_be_left_out() -> None:
    items = [b"\x00\xff", b"two\r\n--two", b"3"]
    assert _json({"inputs": [_text(item) for item in items]}) == Query(items, None)
    body, kind = multipart(*(("files", item) for item in items))
    assert _parse(kind, body) == Query(items, None)
    assert _json({"inputs": [_text(b"x")], "top_k": None}).top_k is None
    assert _json({"inputs": [_text(b"x")], "top_k": 3.0}).top_k == 3  # one number to JSON


def test_a_file_part_needs_no_file_name() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\none\r\n--b--\r\n'
    assert _parse("multipart/form-data; boundary=b", body) == Query([b"one"], None)


@pytest.mark.parametrize(
    "text",
    ["/etc/passwd", "file:///etc/passwd", "http://127.0.0.1/x.png", "data:image/png;base64,AAAA", "A", "AA AA", "é"],
)
def test_a_string_is_base64_and_nothing_else(text: str) -> None:
    query = _json({"inputs": [text, _text(b"good")]})
    assert isinstance(query.items[0], InputError)
    assert query.items[0].code == "bad_base64"
    assert query.items[1] == b"good"


def test_for_a_text_model_the_strings_are_the_texts() -> None:
    texts = [
        "a text",
        "",
        " ",
        "/etc/passwd",
        "AAAA",
        "\0",
        "\u202e\u05e9",
        "\U0001f468\u200d\U0001f469",
        "e\u0301" * 5,
    ]
    for start in range(0, len(texts), LIMITS.max_items):
        some = texts[start : start + LIMITS.max_items]
        assert _json({"inputs": some, "top_k": 2}, "text") == Query([text.encode() for text in some], 2)


def test_a_text_that_is_too_long_is_that_inputs_error() -> None:
    query = _json({"inputs": ["x" * 20, "é" * 21, "x" * 21]}, "text")  # 20 characters, whatever their bytes
    assert [getattr(item, "code", item) for item in query.items] == [b"x" * 20, "text_too_long", "text_too_long"]


@pytest.mark.parametrize("text", [b'"\\ud800"', b'"a\\udfffb"', b'"\\udc00\\ud800"'])
def test_half_a_surrogate_pair_is_that_inputs_error(text: bytes) -> None:
    query = _parse("application/json", b'{"inputs": [' + text + b', "good", "\\ud83d\\ude00"]}', task="text")
    assert isinstance(query.items[0], InputError)
    assert query.items[0].code == "not_text"
    assert query.items[1:] == [b"good", "\U0001f600".encode()]


def test_a_text_model_takes_json_alone_and_says_how() -> None:
    body, multipart_kind = multipart(("files", b"one"))
    for kind in (multipart_kind, "image/png", "application/octet-stream", "text/plain", ""):
        with pytest.raises(RequestError) as caught:
            _parse(kind, body, task="text")
        assert (caught.value.status, caught.value.code) == (415, "unsupported_media_type")
        assert '{"inputs": ["a text", ...], "top_k": 3}' in caught.value.hint
    assert _refusal("application/json", b'{"inputs": "one"}', task="text") == (422, "bad_inputs")
    assert _refusal("application/json", b'{"inputs": ["one"]}', "top_k=2", task="text") == (422, "unknown_parameter")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", (400, "bad_json")),
        (b"\xff\xfe{}", (400, "bad_json")),
        (b"\xef\xbb\xbf{}", (400, "bad_json")),
        (b'{"inputs": ["AAAA"], "top_k": NaN}', (400, "bad_json")),
        (b'{"inputs": ["AAAA"], "top_k": -Infinity}', (400, "bad_json")),
        (b'{"inputs": ["AAAA"], "top_k": ' + b"9" * 600 + b"}", None),
        (b"[" * 900, (400, "bad_json")),
        (b'{"inputs": ["AAAA"], "inputs": ["BBBB"]}', (422, "bad_json")),
        (b'["AAAA"]', (422, "bad_json")),
        (b"null", (422, "bad_json")),
        (b'"AAAA"', (422, "bad_json")),
        (b"{}", (422, "bad_inputs")),
        (b'{"inputs": []}', (422, "bad_inputs")),
        (b'{"inputs": "AAAA"}', (422, "bad_inputs")),
        (b'{"inputs": {"0": "AAAA"}}', (422, "bad_inputs")),
        (b'{"inputs": ["AAAA", 1]}', (422, "bad_inputs")),
        (b'{"inputs": [["AAAA"]]}', (422, "bad_inputs")),
        (b'{"inputs": ["AAAA"], "top_k": "3"}', (422, "bad_top_k")),
        (b'{"inputs": ["AAAA"], "top_k": 3.5}', (422, "bad_top_k")),
        (b'{"inputs": ["AAAA"], "top_k": 1e999}', (422, "bad_top_k")),
        (b'{"inputs": ["AAAA"], "top_k": true}', (422, "bad_top_k")),
        (b'{"inputs": ["AAAA"], "topk": 3}', (422, "unknown_key")),
        (b'{"inputs": ["AAAA", "AAAA", "AAAA", "AAAA"]}', (413, "too_many_inputs")),
    ],
)
def test_json_that_is_not_a_query(body: bytes, expected: tuple[int, str] | None) -> None:
    if expected is None:  # well formed, and refused when the number of labels is known
        assert _parse("application/json", body).top_k == int("9" * 600)
    else:
        assert _refusal("application/json", body) == expected


def test_deep_nesting_and_endless_numbers_are_refused() -> None:
    big = Limits()
    for body in (b"[" * 1_500 + b"]" * 1_500, b'{"inputs": ' * 1_500):
        assert _refusal("application/json", body, limits=big) == (422, "bad_json")
    assert _refusal("application/json", b'{"top_k": ' + b"9" * 10**6 + b"}", limits=big) == (400, "bad_json")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 3_000_000,
        b'{"inputs": [' + b"[]," * 3_000_000 + b"[]]}",
        b'{"inputs": [' + b'"a",' * 3_000_000 + b'"a"]}',
        b'{"inputs": [' + b'{"a":{}},' * 1_000_000 + b'"a"]}',
        b'{"a": "' + b'\\"[' * 1_000_000 + b'", "b": [' + b"1," * 3_000_000 + b"1]}",
    ],
)
def test_far_too_many_values_are_refused_before_they_fill_the_memory(body: bytes) -> None:
    tracemalloc.start()
    try:
        assert _refusal("application/json", body, limits=Limits(), task="text") == (413, "too_many_inputs")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_what_stands_in_a_text_is_no_value() -> None:
    for text in (",[{" * 30_000, '\\"[,' * 20_000, "\\" * 99_999 + '"', '",[{\\u0022' * 10_000):
        body = json.dumps({"inputs": [text] * 2}).encode()
        assert _parse("application/json", body, limits=Limits(), task="text").items == [text.encode()] * 2


def test_an_unknown_key_is_met_with_the_known_one_however_long_it_is() -> None:
    with pytest.raises(RequestError) as caught:
        _json({"input": ["AAAA"]})
    assert caught.value.hint == "did you mean 'inputs'?"
    began = time.monotonic()
    assert _refusal("application/json", json.dumps({"inputs" * 10**6: 1}).encode()) == (422, "unknown_key")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/xml", "application/jsonx", "multipart/mixed", "im", ";"]
)
def test_another_content_type_is_refused(kind: str) -> None:
    assert _refusal(kind, b"{}") == (415, "unsupported_media_type")


def test_a_compressed_body_is_refused() -> None:
    assert _refusal("application/json", b"{}", content_encoding="gzip") == (415, "unsupported_encoding")


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b", "image/png"])
def test_an_empty_body_is_refused(kind: str) -> None:
    assert _refusal(kind, b"") == (400, "empty_body")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("top_k=", "bad_top_k"),
        ("top_k=-1", "bad_top_k"),
        ("top_k=1.5", "bad_top_k"),
        ("top_k=%C2%B2", "bad_top_k"),  # a superscript two, a digit to Python
        ("top_k=" + "9" * 5000, "bad_top_k"),
        ("top_k=1&top_k=2", "bad_parameter"),
        ("topk=1", "unknown_parameter"),
        ("&".join(["a=1"] * 100), "bad_parameter"),
    ],
)
def test_query_parameters_of_a_raw_image(query: str, code: str) -> None:
    assert _refusal("image/png", b"x", query) == (422, code)


def test_a_query_parameter_beside_a_body_that_has_it_is_refused() -> None:
    assert _refusal("application/json", b'{"inputs": ["AAAA"]}', "top_k=2") == (422, "unknown_parameter")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([("top_k", b"1")], (422, "no_files")),
        ([("files", b"x"), ("top_k", b"1"), ("top_k", b"1")], (422, "bad_top_k")),
        ([("files", b"x"), ("top_k", b"\xb2")], (422, "bad_top_k")),
        ([("files", b"x"), ("top_k", b"")], (422, "bad_top_k")),
        ([("file", b"x")], (422, "unknown_part")),
        ([("files", b"x")] * 4, (413, "too_many_inputs")),
        ([("files", b"x")] * 40, (413, "too_many_inputs")),
        ([("", b"x")], (400, "bad_multipart")),
    ],
)
def test_multipart_that_is_not_a_query(parts: list[tuple[str, bytes]], expected: tuple[int, str]) -> None:
    body, kind = multipart(*parts)
    assert _refusal(kind, body) == expected


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--b\r\n"),
        ("multipart/form-data; boundary=", b"--b\r\n"),
        ("multipart/form-data; boundary=" + "b" * 1000, b"--b\r\n"),
        ("multipart/form-data; boundary=b", b"hello"),
        ("multipart/form-data; boundary=b", b"--b"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nbreaks o'),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nno header\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"A" * 100_000 + b": x\r\n\r\nx\r\n--b--\r\n"),
    ],
)
def test_malformed_multipart(kind: str, body: bytes) -> None:
    assert _refusal(kind, body) == (400, "bad_multipart")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["inputs", "top_k", "inputs ", "x"]) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(JSON, st.sampled_from(["image", "text"]))
def test_any_json_is_a_query_or_a_4xx(content: Any, task: Task) -> None:
    _survives("application/json", json.dumps(content).encode(), task=task)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["application/json", "multipart/form-data; boundary=b", "image/png"]),
    st.binary(max_size=80),
    st.sampled_from(["image", "text"]),
)
def test_any_bytes_are_a_query_or_a_4xx(kind: str, body: bytes, task: Task) -> None:
    _survives(kind, body, task=task)


PIECES = [
    b"--b",
    b"--",
    b"\r\n",
    b"\r",
    b"\n",
    b"Content-Disposition",
    b": form-data; name=",
    b'"files"',
    b'"top_k"',
    b"1",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=24).map(b"".join))
def test_anything_like_multipart_is_a_query_or_a_4xx(body: bytes) -> None:
    _survives("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="files"' + body)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.text(max_size=20))
def test_any_content_type_and_query_string_is_a_query_or_a_4xx(kind: str, query: str) -> None:
    _survives(kind, b"{}", query)


def _survives(kind: str, body: bytes, query: str = "", task: Task = "image") -> None:
    status = 200
    try:
        assert _parse(kind, body, query, task=task).items
    except RequestError as error:
        status = error.status
    assert status in {200, 400, 413, 415, 422}
