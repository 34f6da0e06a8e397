"""Where the labels of a scatter plot go, so that none covers another, a marker or an edge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compress.report.svg import TEXT, text_width

_DISTANCES = (0.0, 7.0, 14.0, 24.0, 36.0, 50.0)  # pixels from the nearest place, tried in turn
_GAP = 9.0  # between a marker's middle and its label


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def nearest(self, point: tuple[float, float]) -> tuple[float, float]:
        """Where the box comes nearest to `point`."""
        x, y = point
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)

    def inside(self, other: Box) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True)
class Label:
    """Text in its box; `leader` is the line from it to its point, where the two are not side by side."""

    text: str
    box: Box
    leader: tuple[float, float, float, float] | None

    @property
    def baseline(self) -> float:
        return self.box.bottom - 0.25 * TEXT


def place(texts: Sequence[str], anchors: Sequence[tuple[float, float]], taken: list[Box], bounds: Box) -> list[Label]:
    """Give each text, in order, the nearest free place about its anchor; a text that finds none is left out."""
    occupied, placed = list(taken), []
    for words, anchor in zip(texts, anchors, strict=True):
        for box, far in _candidates(words, anchor):
            if box.inside(bounds) and not any(box.meets(other) for other in occupied):
                occupied.append(box)
                placed.append(Label(words, box, (*anchor, *box.nearest(anchor)) if far else None))
                break
    return placed


def _candidates(words: str, anchor: tuple[float, float]) -> Iterator[tuple[Box, bool]]:
    """Boxes for `words` about `anchor`, the best first: beside it, then at a slant, then above and below."""
    width, height, (x, y) = text_width(words), 1.15 * TEXT, anchor
    for away in _DISTANCES:
        gap = _GAP + away
        for left, top in (
            (x + gap, y - height / 2),
            (x - gap - width, y - height / 2),
            (x + gap, y - height - away / 2),
            (x + gap, y + away / 2),
            (x - gap - width, y - height - away / 2),
            (x - gap - width, y + away / 2),
            (x - width / 2, y - gap - height),
            (x - width / 2, y + gap),
        ):
            yield Box(left, top, left + width, top + height), away > 5
