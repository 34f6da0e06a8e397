"""Hostile images: good files that were damaged in one of many ways, and files that were built to do harm."""

from __future__ import annotations

import base64
import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

from benchmarks.hostile.case import Case, dice
from benchmarks.hostile.files import BUILT, FORMATS, built, picture
from benchmarks.hostile.forms import form

_EVERY = 12  # one in so many was built, the others are mutated


def hostile_images(seed: int, count: int, largest: int = 1 << 24) -> Iterator[Case]:
    """`count` requests with an image each, raw, in JSON or as a form. Files over `largest` bytes are left out."""
    names = list(BUILT)
    random.Random(seed).shuffle(names)
    for number in range(count):
        roll = dice(seed, "image", number)
        if number % _EVERY == 0:
            name = names[number // _EVERY % len(names)]
            content = built(name)
        else:
            format = roll.choice(FORMATS)
            name, content = _mutated(roll, format)
        if len(content) * 4 // 3 <= largest:
            yield _sent(roll, name, content)


def _mutated(roll: random.Random, format: str) -> tuple[str, bytes]:
    file = bytearray(picture(roll, format))
    names = []
    for _ in range(roll.choice((1, 1, 1, 2, 4))):
        mutation = roll.choice(_MUTATIONS)
        names.append(mutation.__name__.strip("_").replace("_", " "))
        mutation(roll, file)
    return f"{format.lower()}: {', '.join(names)}", bytes(file)


def _bits_flipped(roll: random.Random, file: bytearray) -> None:
    for _ in range(roll.choice((1, 3, 30))):
        if file:
            file[roll.randrange(len(file))] ^= 1 << roll.randrange(8)


def _cut_off(roll: random.Random, file: bytearray) -> None:
    del file[roll.randrange(len(file) + 1) :]


def _begun_late(roll: random.Random, file: bytearray) -> None:
    del file[: roll.randrange(len(file) + 1)]


def _piece_lost(roll: random.Random, file: bytearray) -> None:
    at = roll.randrange(len(file) + 1)
    del file[at : at + roll.randint(1, 64)]


def _piece_twice(roll: random.Random, file: bytearray) -> None:
    at = roll.randrange(len(file) + 1)
    file[at:at] = file[at : at + roll.randint(1, 400)] * roll.choice((1, 2, 50))


def _noise_inside(roll: random.Random, file: bytearray) -> None:
    at = roll.randrange(len(file) + 1)
    file[at:at] = roll.randbytes(roll.randint(1, 200))


def _length_wrong(roll: random.Random, file: bytearray) -> None:
    """Four bytes near the beginning, where sizes and lengths are."""
    at = roll.randrange(min(len(file), 120) + 1)
    number = roll.choice((0, 1, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, roll.randrange(2**32)))
    file[at : at + 4] = struct.pack(roll.choice("<>") + "I", number)


def _head_of_another(roll: random.Random, file: bytearray) -> None:
    size = roll.choice((4, 12, 33, 60))
    file[:size] = picture(roll, roll.choice(FORMATS))[:size]


def _tail_of_another(roll: random.Random, file: bytearray) -> None:
    other = picture(roll, roll.choice(FORMATS))
    file[len(file) // 2 :] = other[len(other) // 2 :]


def _zeros_inside(roll: random.Random, file: bytearray) -> None:
    at = roll.randrange(len(file) + 1)
    size = min(roll.randint(1, 500), len(file) - at)
    file[at : at + size] = bytes(size)


_MUTATIONS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _bits_flipped,
    _cut_off,
    _begun_late,
    _piece_lost,
    _piece_twice,
    _noise_inside,
    _length_wrong,
    _head_of_another,
    _tail_of_another,
    _zeros_inside,
)
_KINDS = ("image/png", "image/jpeg", "image/webp", "image/svg+xml", "image/*", "application/octet-stream")


def _sent(roll: random.Random, name: str, content: bytes) -> Case:
    """In one of the forms that the server takes; its name and the kind it claims to be need not fit."""
    way = roll.random()
    if way < 0.6:
        case = Case(
            name, content, roll.choice(_KINDS), path=roll.choice(("/classify", "/classify?top_k=1", "/predict"))
        )
        return replace(case, chunked=roll.random() < 0.2)
    if way < 0.8:
        body = json.dumps({"inputs": [base64.b64encode(content).decode()]}).encode()
        return Case(name, body)
    body, kind = form(("files", content))
    return Case(name, body, kind)
