"""The test items that the choice answers otherwise than the baseline, with what they are: for people to look at."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from compress.report import schema
from train.data import Data

MOST_TEXT = 400  # letters of a text that a page shows
MOST_PIXELS = 96  # longer side of a picture on the page
_PNG_PIXELS = 40  # up to this side a PNG; larger ones are photographs, of which a JPEG is a fifth of the size
_LOST_SHARE = 2 / 3  # of the examples, where there are enough of both


@dataclass(frozen=True)
class Answers:
    """One variant's scores on the test split, float32 [N, K]."""

    scores: np.ndarray

    @property
    def best(self) -> np.ndarray:
        return self.scores.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        return self.scores.max(axis=1)


def examples(data: Data, baseline: np.ndarray, choice: np.ndarray, most: int) -> list[schema.Example]:
    """At most `most` flips, those that were lost first and of each kind the choice's surest answers first.

    `baseline` and `choice` are scores on the test split, float32 [N, K].
    """
    theirs, ours, labels = Answers(baseline), Answers(choice), data.splits["test"].labels
    right_before, right_now = theirs.best == labels, ours.best == labels
    surest = np.argsort(-ours.confidence, kind="stable")
    lost = [int(row) for row in surest if right_before[row] and not right_now[row]]
    gained = [int(row) for row in surest if right_now[row] and not right_before[row]]
    room = max(round(most * _LOST_SHARE), most - len(gained))
    picked = [("lost", row) for row in lost[:room]]
    picked += [("gained", row) for row in gained[: most - len(picked)]]
    return [_example(data, row, kind, theirs, ours) for kind, row in picked]


def _example(data: Data, row: int, kind: str, theirs: Answers, ours: Answers) -> schema.Example:
    test, classes = data.splits["test"], data.classes
    content = test.content[row]
    return schema.Example(
        item=row,
        origin=test.origins[row] if len(test.origins) else "",
        kind=kind,
        label=classes[int(test.labels[row])],
        baseline=classes[int(theirs.best[row])],
        baseline_score=float(theirs.confidence[row]),
        choice=classes[int(ours.best[row])],
        choice_score=float(ours.confidence[row]),
        text=_text(content) if data.task == "text" else None,
        image=None if data.task == "text" else thumbnail(content),
    )


def _text(content: bytes) -> str:
    text = content.decode("utf-8", "replace")
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"


def thumbnail(content: bytes) -> str:
    """An image's bytes as a small one in a data: URI, upright and without the metadata of the original."""
    with Image.open(io.BytesIO(content)) as opened:
        image = ImageOps.exif_transpose(opened).convert("L" if opened.mode in ("1", "L") else "RGB")
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    small, kind = io.BytesIO(), "PNG" if max(image.size) <= _PNG_PIXELS else "JPEG"
    image.save(small, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(small.getvalue()).decode()}"
