"""One hostile request."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """`name` says what is wrong with it; with the seed and the number it was made from, it can be made again."""

    name: str
    body: bytes
    content_type: str | None = "application/json"
    method: str = "POST"
    path: str = "/classify"
    headers: tuple[tuple[str, str], ...] = ()
    chunked: bool = False


def dice(seed: int, kind: str, number: int) -> random.Random:
    """Random numbers for one case: the same whatever was made before it."""
    return random.Random(f"{seed} {kind} {number}")
