"""Which requests the event loop may answer itself: those that take it no longer than a health check can wait."""

from __future__ import annotations

MOST_S = 0.005  # that one of the last two took
MOST_QUOTES = 8  # of a body: one text and top_k have 6; 64 short texts would hold the loop for 64 times as long
MOST_BYTES = 4096  # of a body: a text of that length takes some times longer than a short one, an image any time


def is_short(body: bytes) -> bool:
    """Whether a body holds so little that the last ones like it tell how long it takes."""
    return len(body) <= MOST_BYTES and body.count(b'"') <= MOST_QUOTES


class Brief:
    """Remembers how long short requests took."""

    def __init__(self, possible: bool) -> None:
        """Not `possible`: never."""
        self._possible = possible
        self._took_s = (float("inf"), float("inf"))

    @property
    def likely(self) -> bool:
        """Whether the next short one will be brief too. One slow answer in between says little on a busy machine."""
        return self._possible and min(self._took_s) <= MOST_S

    def took(self, body: bytes, seconds: float) -> None:
        """The time of an answer to `body`, without its waiting."""
        if is_short(body):
            self._took_s = (self._took_s[1], seconds)
