"""Hostile JSON bodies: wrong in depth, numbers, keys, strings, types, encoding or label, and good ones damaged."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.hostile.case import Case, dice
from benchmarks.hostile.files import picture

_KINDS = (
    "application/json",
    "application/json; charset=utf-16",
    "APPLICATION/JSON",
    "application/problem+json",
    "application/x-www-form-urlencoded",
    "application/vnd.bentoml+pickle",
    "application/vnd.bentoml+json",
    "application/x-ndjson",
    "text/plain",
    "multipart/form-data",
    "image/png",
    "json",
    ";;;=",
    "",
)
_PICKLE = b"cos\nsystem\n(S'touch /tmp/limbeck-was-here'\ntR."
_BENTO_HEADERS = (
    ("Payload-Container", "DefaultContainer"),
    ("Payload-Meta", '{"format": "pickle"}'),
    ("Args-Number", "1"),
    ("Batch-Size", "99999999"),
    ("X-BentoML-Serialization", "pickle"),
)
_PATHS = (
    "/classify",
    "/predict",
    "/classify?top_k=1",
    "/classify?x=%ff",
    "/predict?" + "a=b&" * 50,
    "/classify?top_k=",
)


def hostile_documents(seed: int, count: int, task: str) -> Iterator[Case]:
    """`count` requests for a model that classifies images or texts."""
    for number in range(count):
        roll = dice(seed, "document", number)
        make = _MAKERS[number % len(_MAKERS)]
        name = make.__name__.strip("_").replace("_", " ")
        body = make(roll, task)
        odd = roll.random() < 0.1
        kind = roll.choice(_KINDS) if odd else "application/json"
        headers = tuple(roll.sample(_BENTO_HEADERS, 3)) if odd and roll.random() < 0.5 else ()
        path = roll.choice(_PATHS) if roll.random() < 0.1 else roll.choice(_PATHS[:2])
        yield Case(f"json: {name}", body, kind, path=path, headers=headers, chunked=roll.random() < 0.2)


def _good(roll: random.Random, task: str) -> dict[str, Any]:
    """What the model takes, most of the time."""
    if task == "text":
        inputs = [" ".join(roll.choices(("a", "good", "bad", "film", "…", "größe"), k=8)) for _ in range(3)]
    else:
        inputs = [base64.b64encode(picture(roll, "PNG")).decode()]
    return {"inputs": inputs, "top_k": roll.choice((1, 2, None))}


def _damaged(roll: random.Random, task: str) -> bytes:
    body = bytearray(json.dumps(_good(roll, task)).encode())
    for _ in range(roll.choice((1, 2, 8))):
        at = roll.randrange(len(body))
        piece = roll.choice((b"", b'"', b"\\", b"{", b"[", b"]", b",", b"\0", b"\xff", b"\\u", b"0", roll.randbytes(2)))
        body[at : at + roll.choice((0, 1, 5))] = piece
    return bytes(body)


def _cut_off(roll: random.Random, task: str) -> bytes:
    body = json.dumps(_good(roll, task)).encode()
    return body[: roll.randrange(len(body))]


def _of_any_shape(roll: random.Random, task: str) -> bytes:
    return json.dumps(_value(roll, 5)).encode()


def _keys_with_any_values(roll: random.Random, task: str) -> bytes:
    names = ("inputs", "top_k", "Inputs", "", "__proto__", "constructor", "inputs\0", "ctx", "self", "x" * 5000)
    content = {name: _value(roll, 3) for name in roll.sample(names, roll.randint(0, 5))}
    return json.dumps({**_good(roll, task), **content}).encode()


def _value(roll: random.Random, depth: int) -> Any:
    if depth and roll.random() < 0.4:
        return [_value(roll, depth - 1) for _ in range(roll.randint(0, 5))]
    if depth and roll.random() < 0.3:
        return {roll.choice(("inputs", "top_k", "a", "")): _value(roll, depth - 1) for _ in range(roll.randint(0, 4))}
    return roll.choice((None, True, False, 0, -1, 1.5, 10**30, "", "text", "\ud800", "\0", "é" * 100, 1e308))


def _deep(roll: random.Random, task: str) -> bytes:
    depth = roll.choice((10, 500, 990, 1100, 5_000, 50_000))
    opening, closing = roll.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")))
    whole = opening * depth + b"1" + closing * roll.choice((depth, 0))
    return roll.choice((whole, b'{"inputs": ' + whole + b"}", b'{"inputs": ["x"], "top_k": ' + whole + b"}"))


def _numbers(roll: random.Random, task: str) -> bytes:
    odd = [
        "1e999",
        "-1e999",
        "1e-999",
        "-0",
        "0x10",
        "01",
        "1.",
        ".5",
        "+1",
        "1_000",
        "NaN",
        "-Infinity",
        "1e400000",
        "2",
        "2.0",
        "2.5",
        "-1",
        "true",
    ]
    number = roll.choice([*odd, "9" * 300, "9" * 4300, "9" * 5000, "9" * 100_000, "0." + "3" * 50_000])
    return json.dumps(_good(roll, task) | {"top_k": "@"}).replace('"@"', number).encode()


def _strings(roll: random.Random, task: str) -> bytes:
    text = roll.choice(
        (
            "",
            " \t\u2028\u3000",
            "\0" * 50,
            "a\0b",
            "\u202e\u2066\u200b" * 30,
            "e" + "\u0301" * 1500,
            "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 100,
            "\ufeff" * 10,
            "\uffff\ufffe",
            "ﷺ" * 1500,
            "x" * 150_000,
            "x" * 2000,
            "[SEP] [CLS] [PAD] </s> <|endoftext|>",
            "##a ##b",
            "../../../etc/passwd",
            "file:///etc/passwd",
            "http://169.254.169.254/latest/meta-data/",
            "data:image/png;base64,AAAA",
            "{{7*7}} ${jndi:ldap://x/y} ' OR 1=1 -- <script>alert(1)</script>",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
        )
    )
    return json.dumps({"inputs": [text] * roll.choice((1, 1, 3))}, ensure_ascii=roll.random() < 0.5).encode()


def _escapes(roll: random.Random, task: str) -> bytes:
    piece = roll.choice(
        (
            rb"\ud800",
            rb"\udc00\ud800",
            rb"\u00",
            rb"\x41",
            rb"\'",
            b"\t",
            b"\x01",
            rb"\u0000",
            rb"\uD83D\uDE00",
            b"\x7f",
        )
    )
    return b'{"inputs": ["a' + piece * roll.choice((1, 1000)) + b'"]}'


def _encoded_otherwise(roll: random.Random, task: str) -> bytes:
    text = json.dumps(_good(roll, task), ensure_ascii=False)
    way = roll.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "cp037", "latin-1"))
    return text.encode(way, errors="replace")


def _overlong_utf8(roll: random.Random, task: str) -> bytes:
    piece = roll.choice((b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xc3", b"\x80"))
    return b'{"inputs": ["a' + piece + b'"]}'


def _a_key_twice(roll: random.Random, task: str) -> bytes:
    one = json.dumps(_good(roll, task)).encode()[1:-1]
    return b"{" + one + b", " + one + b"}"


def _of_wrong_types(roll: random.Random, task: str) -> bytes:
    inputs: Any = roll.choice(
        ("text", 1, None, {}, [1], [None], [[]], [["a"]], [{"b64": "AAAA"}], [True], {"0": "a"}, [])
    )
    top_k: Any = roll.choice((1, "1", [1], {}, True, 0, -1, 10**9, 2**63, 1.5, None))
    return json.dumps({"inputs": inputs, "top_k": top_k}).encode()


def _far_too_many(roll: random.Random, task: str) -> bytes:
    piece = roll.choice((b'"a"', b"[]", b"{}", b'{"a":{}}', b"1", b"null", b'""'))
    return b'{"inputs": [' + b",".join([piece] * roll.choice((41, 65, 1000, 50_000))) + b"]}"


def _no_json(roll: random.Random, task: str) -> bytes:
    return roll.choice(
        (
            b"",
            b" ",
            b"null",
            b"{}",
            b"[]",
            b'"inputs"',
            b"{'inputs': ['a']}",
            b'{"inputs": ["a"],}',
            b'{"inputs": ["a"]} {"inputs": ["b"]}',
            b'/**/{"inputs": ["a"]}',
            b"inputs=a&top_k=1",
            b"<inputs><a/></inputs>",
            b"\x80\x04\x95" + roll.randbytes(40),
            _PICKLE,
            b"\x1f\x8b\x08" + roll.randbytes(40),
            roll.randbytes(500),
            b"\0" * 1000,
        )
    )


_MAKERS: tuple[Callable[[random.Random, str], bytes], ...] = (
    _damaged,
    _cut_off,
    _of_any_shape,
    _keys_with_any_values,
    _deep,
    _numbers,
    _strings,
    _escapes,
    _encoded_otherwise,
    _overlong_utf8,
    _a_key_twice,
    _of_wrong_types,
    _far_too_many,
    _no_json,
)
