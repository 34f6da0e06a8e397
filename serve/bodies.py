"""Request bodies: read under a limit and a deadline, then parsed into a query.

Texts come as JSON; images as JSON with base64, as multipart or raw, which mean the same. No string is a path or a URL:
nothing is opened or fetched on a request's word.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qsl

from python_multipart.multipart import parse_options_header

from serve.deadline import deadline
from serve.errors import InputError, RequestError, did_you_mean
from serve.gate import full
from serve.limits import Limits
from serve.manifest import Task
from serve.parts import read_parts

if TYPE_CHECKING:
    from serve.edge import Receive

# A body that is too large is read on and thrown away up to this many times the limit, so that its sender, who does not
# listen before all is sent, still gets the answer.
_DISCARD_FACTOR, _DISCARD_SECONDS = 8, 3
_CROWDED_SECONDS = 0.05  # what was sent whole is there by then
_CLOSE = ((b"connection", b"close"),)  # what was not read would be taken for the next request
_SHOWN = 40  # characters of a request that an error quotes
# Values that a JSON body may hold before it is read as JSON: 16 MB of `[],[],...` become 385 MB of empty lists.
_VALUES_PER_INPUT, _VALUES_BESIDE = 16, 1000
_OPENERS = (b",", b"[", b"{")  # each value but the first stands behind one of these
_STRING_OR_OPENER = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|([,\[{])', re.DOTALL)


# How each task's inputs are sent: the Content-Type, and what the body then is. GET /model says it too.
BODIES: dict[Task, dict[str, str]] = {
    "text": {"application/json": '{"inputs": ["a text", ...], "top_k": 3}'},
    "image": {
        "application/json": '{"inputs": ["<base64 of an image>", ...], "top_k": 3}',
        "multipart/form-data": "a part named `files` for each image, and one named `top_k`",
        "image/*": "the bytes of one image, with ?top_k=3",
    },
}


@dataclass(frozen=True)
class Query:
    """What a request asks: the bytes of each input, or why it has none, and how many labels to name for each."""

    items: list[bytes | InputError]
    top_k: int | None  # None: the server's default


async def read_body(
    receive: Receive,
    headers: Mapping[bytes, bytes],
    limits: Limits,
    unread: Callable[[], AbstractContextManager[bool]] = lambda: contextlib.nullcontext(False),
) -> bytes:
    """The whole body. Raises RequestError: 413 over the limit, 408 past the deadline, 400 if the sender is gone.

    `unread` is open meanwhile. Where it says that too many bodies are waited for, this one has a moment, and then 429.
    """
    with unread() as crowded:
        try:
            with deadline(_CROWDED_SECONDS if crowded else limits.body_seconds):
                return await _read(receive, headers, limits)
        except TimeoutError:
            if crowded:
                raise full(_CLOSE) from None
            message = f"the body did not arrive within {limits.body_seconds} s"
            raise RequestError(408, "slow_body", message, "send it faster", _CLOSE) from None


async def _read(receive: Receive, headers: Mapping[bytes, bytes], limits: Limits) -> bytes:
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limits.max_body_bytes:
        asked_first = b"expect" in headers  # and sends nothing before it is told to
        raise _too_large(limits, ended=not asked_first and await _discard(receive, limits))
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "incomplete_body", "the connection closed before the whole body arrived")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limits.max_body_bytes:
            raise _too_large(limits, ended=not more or await _discard(receive, limits))
    return bytes(body)


async def _discard(receive: Receive, limits: Limits) -> bool:
    """Let the sender finish, unless it sends too much or too slowly. Whether it did."""
    more, budget = True, _DISCARD_FACTOR * limits.max_body_bytes
    with contextlib.suppress(TimeoutError), deadline(_DISCARD_SECONDS):
        while more and budget > 0:
            message = await receive()
            more = message.get("more_body", False)
            budget -= len(message.get("body", b""))
    return not more


def _too_large(limits: Limits, *, ended: bool) -> RequestError:
    hint = "send fewer or smaller inputs in one request"
    message = f"the body is over {limits.max_body_bytes} bytes"
    return RequestError(413, "body_too_large", message, hint, () if ended else _CLOSE)


def parse_query(headers: Mapping[bytes, bytes], query_string: bytes, body: bytes, limits: Limits, task: Task) -> Query:
    """A query from a body of any kind that `task` takes.

    Raises RequestError: 400 malformed, 413, 415 or 422 not what was expected.
    """
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise RequestError(415, "unsupported_encoding", "a compressed body is not understood", "send it as it is")
    kind, options = parse_options_header(headers.get(b"content-type", b""))
    raw = task == "image" and (kind.startswith(b"image/") or kind == b"application/octet-stream")
    if not raw and kind != b"application/json" and (task == "text" or kind != b"multipart/form-data"):
        raise _unsupported(headers.get(b"content-type", b"").decode("latin-1"), task)
    parameters = _parameters(query_string, ("top_k",) if raw else ())
    if not body:
        raise RequestError(400, "empty_body", "the body is empty", "see /openapi.json for what to send")
    if raw:
        return Query([body], _integer(parameters.get("top_k")))
    if kind == b"application/json":
        return query_from(_json_object(body, task, limits), limits, task)
    return _multipart_query(options.get(b"boundary", b""), body, limits)


def _unsupported(content_type: str, task: Task) -> RequestError:
    if task == "text":
        hint = f"the model classifies texts: send application/json, {BODIES['text']['application/json']}"
    else:
        hint = "send application/json, multipart/form-data, or the bytes of one image as image/*"
    message = f"the Content-Type {shown(content_type)!r} is not understood"
    return RequestError(415, "unsupported_media_type", message, hint)


def _parameters(query_string: bytes, known: tuple[str, ...]) -> dict[str, str]:
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, max_num_fields=8)
    except ValueError:
        raise RequestError(422, "bad_parameter", "the query string cannot be read", "only ?top_k= is known") from None
    for name, _ in pairs:
        if name not in known:
            hint = did_you_mean(shown(name), known) if known else "with this kind of body, top_k is a part of it"
            raise RequestError(422, "unknown_parameter", f"unknown query parameter {shown(name)!r}", hint)
    if len(pairs) > len(dict(pairs)):
        raise RequestError(422, "bad_parameter", "a query parameter is given twice", "give it once")
    return dict(pairs)


def query_from(content: Mapping[str, Any], limits: Limits, task: Task) -> Query:
    """A query from the object of a JSON body: `inputs`, and `top_k` if it likes. Raises RequestError: 413 or 422."""
    for key in content:
        if key not in ("inputs", "top_k"):
            hint = did_you_mean(shown(key), ("inputs", "top_k"))
            raise RequestError(422, "unknown_key", f"unknown key {shown(key)!r}", hint)
    inputs, top_k = content.get("inputs"), content.get("top_k")
    if not isinstance(inputs, list) or not inputs or not all(isinstance(text, str) for text in inputs):
        raise RequestError(422, "bad_inputs", "`inputs` is missing, empty or not a list of strings", _expected(task))
    if isinstance(top_k, float) and top_k.is_integer():  # 3.0 is a whole number to JSON, and to our OpenAPI document
        top_k = int(top_k)
    if top_k is not None and type(top_k) is not int:  # to isinstance, true and false are whole numbers
        raise RequestError(422, "bad_top_k", "`top_k` is not a whole number", 'expected for example {"top_k": 3}')
    _check_count(len(inputs), limits)
    return Query([_from_text(text, limits) if task == "text" else _from_base64(text) for text in inputs], top_k)


def _expected(task: Task) -> str:
    return f"expected {BODIES[task]['application/json']}"


def _check_values(body: bytes, limits: Limits) -> None:
    """Refuse JSON with far more values than inputs are allowed. A text may hold any number of commas and brackets."""
    most = _VALUES_PER_INPUT * limits.max_items + _VALUES_BESIDE
    if sum(map(body.count, _OPENERS)) <= most:  # so it is for nearly every request, and as fast as memory is read
        return
    values = 0
    for match in _STRING_OR_OPENER.finditer(body):
        values += match.lastindex is not None
        if values > most:
            message = f"the JSON has more than {most} values, for at most {limits.max_items} inputs"
            raise RequestError(413, "too_many_inputs", message, "see /openapi.json for what to send")


def _json_object(body: bytes, task: Task, limits: Limits) -> dict[str, Any]:
    expected = _expected(task)
    _check_values(body, limits)
    try:
        content = _JSON.decode(body.decode("utf-8"))
    except RecursionError:
        raise RequestError(422, "bad_json", "the JSON is nested too deeply", expected) from None
    except json.JSONDecodeError as error:
        raise RequestError(400, "bad_json", f"the body is not JSON: {error}", expected) from None
    except ValueError:
        raise RequestError(400, "bad_json", "the body is not UTF-8, or a number in it is too long", expected) from None
    if not isinstance(content, dict):
        raise RequestError(422, "bad_json", "the body is JSON, but not an object", expected)
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(content := dict(pairs)) < len(pairs):  # JSON leaves open which of two equal keys holds
        raise RequestError(422, "bad_json", "an object of the JSON has a key twice", "give each key once")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise RequestError(400, "bad_json", f"the body is not JSON: {name} is none of its values", "leave it out")


_JSON = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)  # json.loads makes one each time


def _from_text(text: str, limits: Limits) -> bytes | InputError:
    if len(text) > limits.max_text_chars:
        message = f"the text has {len(text)} characters; at most {limits.max_text_chars} are read"
        return InputError("text_too_long", message, "send a shorter text; GET /model names the limits")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # JSON can say "\ud800" alone, which is no character
        message = "the text has half of a surrogate pair, which is no character"
        return InputError("not_text", message, "send UTF-8, or both halves as \\uXXXX\\uXXXX")


def _from_base64(text: str) -> bytes | InputError:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # one bad input among good ones is that input's error, not the request's
        hint = "send the standard alphabet with padding, without line breaks and without a data: prefix"
        return InputError("bad_base64", "the input is not base64", hint)


def _multipart_query(boundary: bytes, body: bytes, limits: Limits) -> Query:
    items: list[bytes | InputError] = []
    top_k: int | None = None
    for name, content in read_parts(boundary, body, max_parts=limits.max_items + 2):
        if name == "files":
            items.append(content)
        elif name == "top_k" and top_k is None:
            top_k = _integer(content.decode("latin-1"))
        elif name == "top_k":
            raise RequestError(422, "bad_top_k", "there are two parts named top_k", "send one, or none")
        else:
            hint = did_you_mean(shown(name), ("files", "top_k"))
            raise RequestError(422, "unknown_part", f"unknown part {shown(name)!r}", hint)
    if not items:
        raise RequestError(422, "no_files", "there is no part named `files`", "send each image as a part named `files`")
    _check_count(len(items), limits)
    return Query(items, top_k)


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.max_items:
        raise RequestError(
            413,
            "too_many_inputs",
            f"{count} inputs are over the limit of {limits.max_items}",
            f"send at most {limits.max_items} in one request",
        )


def _integer(top_k: str | None) -> int | None:
    if top_k is None:
        return None
    if not (top_k.isascii() and top_k.isdigit() and len(top_k) <= 9):
        raise RequestError(422, "bad_top_k", f"top_k is {shown(top_k)!r}, not a whole number", "expected top_k=3")
    return int(top_k)


def shown(text: str) -> str:
    """What an error may quote of a request: a short piece, whatever was sent."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
