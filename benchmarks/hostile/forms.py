"""Hostile forms: multipart/form-data that is cut, nested, mislabelled or endless."""

from __future__ import annotations

import random
from collections.abc import Iterator

from benchmarks.hostile.case import Case, dice
from benchmarks.hostile.files import picture

_BOUNDARY = "hostile-form"


def form(*parts: tuple[str, bytes]) -> tuple[bytes, str]:
    """A good form with these named parts, and its Content-Type."""
    head = '--{}\r\nContent-Disposition: form-data; name="{}"; filename="../../etc/passwd"\r\n\r\n'
    pieces = [head.format(_BOUNDARY, name).encode() + content + b"\r\n" for name, content in parts]
    return b"".join(pieces) + f"--{_BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={_BOUNDARY}"


def hostile_forms(seed: int, count: int) -> Iterator[Case]:
    """`count` forms: the oddities below, and mutations of a good one."""
    for number in range(count):
        roll = dice(seed, "form", number)
        good, kind = form(("files", picture(roll, "PNG")), ("top_k", b"2"))
        odd = _oddities(good, kind)
        if number < len(odd):
            yield odd[number]
        else:
            yield Case("form, mutated", _mutated(roll, good), kind, chunked=roll.random() < 0.3)


def _mutated(roll: random.Random, good: bytes) -> bytes:
    body = bytearray(good)
    for _ in range(roll.randint(1, 6)):
        at = roll.randrange(len(body))
        piece = roll.choice((b"", b"\r\n", b"\n", b"--", b"\0", b"--hostile-form", b'"', b";", roll.randbytes(3)))
        body[at : at + roll.choice((0, 1, 20))] = piece
    return bytes(body)


def _oddities(good: bytes, kind: str) -> list[Case]:
    head = b"--hostile-form\r\n"
    end = b"\r\n--hostile-form--\r\n"
    named = b'Content-Disposition: form-data; name="files"\r\n'
    bodies = {
        "nothing but its end": end,
        "without an end": good[: -len(end)],
        "cut in a header": good[:30],
        "with a million headers": head + b"a: b\r\n" * 30_000 + b"\r\n\r\n" + end,
        "with an endless header": head + b"a: " + b"b" * 150_000 + b"\r\n\r\n\r\n" + end,
        "in 20,000 parts": (head + named + b"\r\nx\r\n") * 3_000 + b"--hostile-form--\r\n",
        "with a part without a name": head + b"\r\nx" + end,
        "with an unknown part": head + b'Content-Disposition: form-data; name="file"\r\n\r\nx' + end,
        "within a form": head + named + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--" + end,
        "with an encoded part": head + named + b"Content-Transfer-Encoding: base64\r\n\r\nAAAA" + end,
        "with a name in UTF-16": head
        + 'Content-Disposition: form-data; name="files"'.encode("utf-16")
        + b"\r\n\r\n"
        + end,
        "with five dispositions": head + named * 5 + b"\r\nx" + end,
        "with line feeds alone": good.replace(b"\r\n", b"\n"),
        "of almost boundaries": head + named + b"\r\n" + b"\r\n--hostile-for" * 10_000 + end,
    }
    kinds = {
        "without a boundary": "multipart/form-data",
        "with an empty boundary": "multipart/form-data; boundary=",
        "with a boundary of 3,000 bytes": "multipart/form-data; boundary=" + "b" * 3000,
        "with another boundary": "multipart/form-data; boundary=other",
        "with two boundaries": kind + "; boundary=other",
        "with a quoted boundary": 'multipart/form-data; boundary="hostile-form',
        "of another kind": kind.replace("form-data", "mixed"),
    }
    return [
        *(Case(f"form {name}", body, kind) for name, body in bodies.items()),
        *(Case(f"form {name}", good, other) for name, other in kinds.items()),
    ]
