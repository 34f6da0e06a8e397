"""From scores to what a request is told.

N inputs of a request, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve.errors import InputError, RequestError
from serve.stopwatch import Stopwatch

_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # made once: json.dumps makes one for each call
_FEW = 32  # classes: Python's own sort is faster than a call of NumPy
_TOO_LARGE = ("too_many_pixels", "text_too_long")


@dataclass(frozen=True)
class Answer:
    """What a request gets, and what is counted of it."""

    body: bytes
    predictions: list[dict[str, Any]]
    stopwatch: Stopwatch

    @property
    def best(self) -> list[tuple[str, float]]:
        """Label and score of each input that could be read."""
        return [(each["label"], each["score"]) for each in self.predictions if "label" in each]


@dataclass(frozen=True)
class Prepared:
    """One item ready for the model: a batch of one."""

    inputs: np.ndarray
    truncated: bool

    @property
    def notes(self) -> dict[str, bool]:
        """What its prediction says beside the labels."""
        return {"truncated": True} if self.truncated else {}


class Namer:
    """Names what scores mean, in JSON's types."""

    def __init__(self, labels: Sequence[str], abstain_below: float | None) -> None:
        self._labels = labels
        self._abstain_below = abstain_below

    def name(self, scores: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        """Scores [N, K] as predictions. A float32 is written as the double it equals, so it reads back exactly."""
        predictions = []
        for row in scores:
            values = row.tolist()
            top = [{"label": self._labels[k], "score": values[k]} for k in _best(row, values, top_k)]
            predictions.append({**top[0], "top_k": top, **self._doubt(top[0]["score"])})
        return predictions

    def _doubt(self, score: float) -> dict[str, bool]:
        """The mark of a prediction whose best score is below the package's threshold."""
        return {"abstained": True} if self._abstain_below is not None and score < self._abstain_below else {}


def _best(row: np.ndarray, values: list[float], top_k: int) -> list[int]:
    """The classes of the highest scores, those first; of equal scores, the first class wins."""
    if len(values) <= _FEW:
        return sorted(range(len(values)), key=lambda k: -values[k])[:top_k]
    best: list[int] = np.argsort(-row, kind="stable")[:top_k].tolist()
    return best


def refusal(outcomes: Sequence[InputError | Prepared]) -> RequestError:
    """The error of a request of which no input could be read: that of its first."""
    first = outcomes[0]
    assert isinstance(first, InputError)
    message = first.message if len(outcomes) == 1 else f"none of {len(outcomes)} inputs can be read: {first.message}"
    return RequestError(413 if first.code in _TOO_LARGE else 422, first.code, message, first.hint)


def error_item(error: InputError) -> dict[str, Any]:
    """What stands in the place of an input that has no prediction."""
    return {"error": {"code": error.code, "message": error.message, "hint": error.hint}}


def to_json(content: dict[str, Any]) -> bytes:
    """Compact JSON. Raises ValueError for a score that is no number."""
    return _JSON.encode(content).encode()
