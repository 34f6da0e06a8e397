"""Which requests the event loop may answer itself: those that take it no longer than a health check can wait."""

from __future__ import annotations

from collections.abc import Callable

from serve.manifest import Task
from serve.small_images import is_small_image

MOST_S = 0.005  # that one of the last two took
MOST_QUOTES = 8  # of a body: one text and top_k have 6; 64 short texts would hold the loop for 64 times as long
MOST_BYTES = 4096  # of a body: a text of that length takes some times longer than a short one, an image any time


def is_short_text(body: bytes) -> bool:
    """Whether a JSON body holds hardly more than one text of a few sentences."""
    return len(body) <= MOST_BYTES and body.count(b'"') <= MOST_QUOTES


IS_SHORT: dict[Task, Callable[[bytes], bool]] = {"text": is_short_text, "image": is_small_image}


class Brief:
    """Remembers how long short requests took: how little they hold, the last ones tell of the next."""

    def __init__(self, task: Task, possible: bool) -> None:
        """Not `possible`: never."""
        self.is_short = IS_SHORT[task]
        self._possible = possible
        self._took_s = (float("inf"), float("inf"))

    @property
    def likely(self) -> bool:
        """Whether the next short one will be brief too. One slow answer in between says little on a busy machine."""
        return self._possible and min(self._took_s) <= MOST_S

    def took(self, seconds: float) -> None:
        """The time of an answer to a short one, without its waiting."""
        self._took_s = (self._took_s[1], seconds)
