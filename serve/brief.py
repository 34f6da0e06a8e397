"""Which requests the event loop may answer itself: those that take it no longer than a health check can wait."""

from __future__ import annotations

from collections.abc import Callable

from serve.manifest import Task
from serve.small_images import is_small_image

MOST_S = 0.005  # of a processor, that one of the last two of its length took
MOST_QUOTES = 8  # of a body: one text and top_k have 6; 64 short texts would hold the loop for 64 times as long
MOST_BYTES = 4096  # of a body: a text of that length takes some times longer than a short one, an image any time


def is_short_text(body: bytes) -> bool:
    """Whether a JSON body holds hardly more than one text of a few sentences."""
    return len(body) <= MOST_BYTES and body.count(b'"') <= MOST_QUOTES


IS_SHORT: dict[Task, Callable[[bytes], bool]] = {"text": is_short_text, "image": is_small_image}


class Brief:
    """Remembers how long short requests took, for each power of two of bytes: a text of a few words tells nothing of
    one of 4,096 bytes, which may take a model a hundred times as long."""

    def __init__(self, task: Task, possible: bool) -> None:
        """Not `possible`: never."""
        self.is_short = IS_SHORT[task]
        self._possible = possible
        self._took_s: dict[int, float] = {}  # the last time, by length
        self._brief: set[int] = set()  # the lengths of which one of the last two took no longer than MOST_S

    @property
    def ever(self) -> bool:
        """Whether short requests of any length are brief."""
        return bool(self._brief)

    def likely(self, body: bytes) -> bool:
        """Whether this one is short, and will be brief. One slow answer says little on a busy machine."""
        return len(body).bit_length() in self._brief and self.is_short(body)

    def took(self, size_bytes: int, seconds: float) -> None:
        """How long an answer to a short one had a processor, whatever else ran on the machine meanwhile: under load
        each would seem long, and be sent to a thread, which is more work still."""
        if not self._possible:
            return
        length = size_bytes.bit_length()
        before, self._took_s[length] = self._took_s.get(length, seconds), seconds
        if min(before, seconds) <= MOST_S:
            self._brief.add(length)
        else:
            self._brief.discard(length)
