"""Hostile conversations below HTTP libraries: bytes that are no request, half of one, one too many, or slow."""

from __future__ import annotations

import json
import random
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.hostile.case import dice
from benchmarks.hostile.judge import Findings, complaint_about

_AT_ONCE = 48
_SILENCE_S = 22  # the server ends each of these conversations within that, by its own limits
_DRIP_S = 0.3


@dataclass(frozen=True)
class Talk:
    """Bytes to send, and seconds to wait in between. `answers`: at least so many are owed."""

    name: str
    says: tuple[bytes | float, ...]
    answers: int = 1
    reset: bool = False  # and then the client is gone, without a goodbye


def talk_all(port: int, talks: Iterator[Talk]) -> Findings:
    """Many at a time: some of them take as long as the server lets them."""
    findings = Findings()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for talk, (statuses, seconds, complaint) in pool.map(lambda talk: (talk, _talk(port, talk)), talks):
            findings.add(talk.name, statuses, seconds, complaint)
    return findings


def _talk(port: int, talk: Talk) -> tuple[list[int], float, str | None]:
    began, heard = time.monotonic(), bytearray()
    closed = False
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_SILENCE_S) as connection:
            _say(connection, talk.says)
            if talk.reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return [], time.monotonic() - began, None
            while piece := connection.recv(1 << 16):
                heard += piece
            closed = True
    except TimeoutError:
        pass
    except OSError:
        closed = True
    statuses, complaint = _judged(bytes(heard))
    if complaint is None and not closed:
        complaint = f"neither answered nor closed within {_SILENCE_S} s"
    if complaint is None and len(statuses) < talk.answers:
        complaint = f"{len(statuses)} answers instead of {talk.answers}"
    return statuses, time.monotonic() - began, complaint


def _say(connection: socket.socket, says: tuple[bytes | float, ...]) -> None:
    for part in says:
        if isinstance(part, float):
            time.sleep(part)
            continue
        try:
            connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):  # it has said what it had to, which is still to be read
            return


def _judged(heard: bytes) -> tuple[list[int], str | None]:
    """The status of each answer, and what is wrong with the first that is not well."""
    statuses: list[int] = []
    while heard:
        head, _, heard = heard.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        if not lines[0].startswith("HTTP/1.1 ") or not lines[0][9:12].isdigit():
            return statuses, f"no answer in HTTP: {lines[0][:80]!r}"
        status = int(lines[0][9:12])
        if status == 100:
            continue
        size = int(headers.get("content-length", 0))
        body, heard = heard[:size], heard[size:]
        statuses.append(status)
        if len(body) == size and (complaint := complaint_about(status, headers, body)):
            return statuses, complaint
    return statuses, None


def hostile_talks(seed: int, count: int, kind: str, body: bytes) -> Iterator[Talk]:
    """`count` conversations around a good request with this Content-Type and body; the named ones are first."""
    named = _named(kind.encode(), body)
    yield from named[:count]
    good = _head("POST", "/classify", f"Content-Type: {kind}", f"Content-Length: {len(body)}") + body
    for number in range(count - len(named)):
        roll = dice(seed, "talk", number)
        yield Talk("request, mutated", (_mutated(roll, good),), answers=0, reset=roll.random() < 0.1)


def _mutated(roll: random.Random, good: bytes) -> bytes:
    raw = bytearray(good)
    for _ in range(roll.choice((1, 2, 5, 20))):
        at = roll.randrange(min(len(raw), 200))
        piece = roll.choice(
            (b"", b"\r\n", b"\n", b"\0", b" ", b":", b"\xff", b"\t", b"%", b"HTTP/1.1", roll.randbytes(2))
        )
        raw[at : at + roll.choice((0, 1, 4))] = piece
    return bytes(raw)


def _head(method: str, path: str, *headers: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: x", *headers, "", ""]).encode()


def _named(kind: bytes, body: bytes) -> list[Talk]:
    """Each known way to be no good client. Those that keep a connection open are ended by the server."""
    post = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: " + kind + b"\r\n"
    sized = post + b"Content-Length: %d\r\n\r\n" % len(body)
    pieces = post + b"Transfer-Encoding: chunked\r\n\r\n"
    one_chunk = b"%x\r\n" % len(body) + body + b"\r\n"
    methods = ("GET", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "PROPFIND", "FOO", "post", "CONNECT")
    paths = ["*", "http://other/livez", "//", "/%00", "/%2e%2e/%2e%2e/etc/passwd", "/..;/model", "/livez/..", "/\xff"]
    paths += ["/classify%20", "/classify\t", "/a b", "/" + "a" * 8000, "/" + "a" * 9000, "/?" + "&" * 8000]
    drip = tuple(part for at in range(90) for part in (b"a: b\r\n", _DRIP_S))
    slow = tuple(part for at in range(90) for part in (body[at : at + 1] or b" ", _DRIP_S))
    return [
        *(Talk(f"{method} /classify", (_head(method, "/classify"),)) for method in methods),
        *(Talk(f"GET {path[:30]!r}", (_head("GET", path),)) for path in paths),
        Talk("silence", (), answers=0),
        Talk("half a head", (post,)),
        Talk("a dripping head", (post, *drip)),
        Talk("half a body", (sized + body[: len(body) // 2],)),
        Talk("a dripping body", (sized, *slow)),
        Talk("half a chunk", (pieces + one_chunk[:-5],)),
        Talk("gone in the head", (post,), answers=0, reset=True),
        Talk("gone in the body", (sized + body[:5],), answers=0, reset=True),
        Talk("gone before the answer", (sized + body,), answers=0, reset=True),
        Talk("a body that is longer than said", (sized + body + b"x" * 500,)),
        Talk("a hundred at once", ((sized + body) * 100,), answers=100),
        Talk("in single bytes", tuple((sized + body)[at : at + 1] for at in range(len(sized) + min(len(body), 2000)))),
        Talk("an expectation that is met", (post + b"Expect: 100-continue\r\nContent-Length: 999999999\r\n\r\n",)),
        Talk("another expectation", (post + b"Expect: a-miracle\r\nContent-Length: %d\r\n\r\n" % len(body) + body,)),
        Talk("HTTP/2", (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),)),
        Talk("an offer of HTTP/2", (_offer(post, b"h2c", body),)),
        Talk("an offer of a WebSocket", (_offer(post, b"websocket", body),)),
        Talk("TLS", (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),)),
        Talk("SSH", (b"SSH-2.0-OpenSSH_9.2\r\n",)),
        Talk("HTTP/9.9", (_head("GET", "/livez", version="9.9"),)),
        Talk("no host", (b"GET /livez HTTP/1.1\r\n\r\n",)),
        Talk("101 headers", (_head("GET", "/livez", *["a: b"] * 101),)),
        Talk("a million headers", (_head("GET", "/livez", *["a: b"] * 100_000),)),
        Talk("an endless header", (_head("GET", "/livez")[:-2] + b"a: " + b"b" * 3_000_000,)),
        Talk("a header without a colon", (_head("GET", "/livez", "nothing"),)),
        Talk("a folded header", (_head("GET", "/livez", "a: b\r\n c"),)),
        Talk("a NUL in a header", (_head("GET", "/livez", "a: \0"),)),
        Talk("two lengths", (post + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n" + body,)),
        Talk("a length and chunks", (post + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + one_chunk,)),
        Talk("a negative length", (post + b"Content-Length: -1\r\n\r\n" + body,)),
        Talk("a length of 2^64", (post + b"Content-Length: 18446744073709551616\r\n\r\n" + body,)),
        Talk("a length of 10 GB", (post + b"Content-Length: 10000000000\r\n\r\n" + body,)),
        Talk(
            "compressed and in chunks", (post + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + one_chunk + b"0\r\n\r\n",)
        ),
        Talk("another transfer encoding", (post + b"Transfer-Encoding: identity\r\n\r\n" + body,)),
        Talk("a chunk of no number", (pieces + b"zz\r\n",)),
        Talk("a chunk of 2^64 bytes", (pieces + b"ffffffffffffffffff\r\n",)),
        Talk("a chunk of a negative size", (pieces + b"-1\r\n",)),
        Talk("a chunk with an endless extension", (pieces + b"1;" + b"a=b;" * 500_000,)),
        Talk("a million chunks", (pieces + b"1\r\nx\r\n" * 400_000,)),
        Talk("headers behind the body", (pieces + one_chunk + b"0\r\nContent-Encoding: gzip\r\nA: b\r\n\r\n",)),
        Talk("endless headers behind the body", (pieces + one_chunk + b"0\r\n" + b"a: b\r\n" * 400_000,)),
        Talk("a request id to break the log", (_head("GET", "/livez", "X-Request-ID: a\tb\x7f'; DROP"),)),
        *(Talk("an idle connection", (), answers=0) for _ in range(8)),
    ]


def _offer(post: bytes, protocol: bytes, body: bytes) -> bytes:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + protocol + b"\r\nHTTP2-Settings: AAMAAABk\r\n"
    return post + offer + b"Content-Length: %d\r\n\r\n" % len(body) + body


def good_request(task: str, picture: bytes) -> tuple[str, bytes]:
    """Content-Type and body of a request that is answered."""
    if task == "image":
        return "image/png", picture
    return "application/json", json.dumps({"inputs": ["a good film", "a bad one"]}).encode()
