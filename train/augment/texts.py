"""Text augmentation: each view of a text is another text, which is then tokenized as a request would be."""

from __future__ import annotations

import re

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from train.augment.draws import generator

_WORD = re.compile(r"\S+")


class TextAugment(BaseModel):
    """The part of `fit.augment` that is for texts. Each is the share of the words that it happens to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    delete: float = Field(default=0.0, ge=0, lt=1)
    swap: float = Field(default=0.0, ge=0, lt=1)  # with the word that follows


def augment_text(text: str, config: TextAugment, seed: int, epoch: int, index: int) -> str:
    """A new view of the text that is item `index` of the training split; never an empty one (Wei & Zou 2019, EDA)."""
    draw = generator(seed, epoch, index)
    words = _WORD.findall(text)
    words = _delete(words, config.delete, draw)
    words = _swap(words, config.swap, draw)
    return " ".join(words) or text


def _delete(words: list[str], share: float, draw: np.random.Generator) -> list[str]:
    kept = draw.random(len(words)) >= share
    return [word for word, keep in zip(words, kept, strict=True) if keep] or words[:1]


def _swap(words: list[str], share: float, draw: np.random.Generator) -> list[str]:
    swapped = list(words)
    for at in np.flatnonzero(draw.random(max(len(words) - 1, 0)) < share):
        swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
    return swapped
