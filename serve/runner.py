"""A runner turns request bytes into class scores. Every variant is measured, and served, through one of these.

N items, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Runner(Protocol):
    """What evaluation and serving ask of a model, whichever runtime is behind it."""

    labels: tuple[str, ...]

    def prepare(self, items: Sequence[bytes]) -> np.ndarray:
        """Request bytes to model input (images: uint8 [N, H, W, C])."""

    def compute(self, inputs: np.ndarray) -> np.ndarray:
        """Model input to scores: float32 [N, K], rows that sum to 1."""


def scores(runner: Runner, items: Sequence[bytes]) -> np.ndarray:
    """Request bytes to scores: float32 [N, K]."""
    return runner.compute(runner.prepare(items))


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Rows of `logits` [N, K] to probabilities at `temperature`, in float32."""
    # Few calls, in place and past the Python around numpy's reductions: of one row the arithmetic is next to nothing.
    scaled = logits if temperature == 1 else np.divide(logits, np.float32(temperature), dtype=np.float32)
    scores = np.subtract(scaled, np.maximum.reduce(scaled, axis=1, keepdims=True), dtype=np.float32)
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores, axis=1, keepdims=True)
    return scores
