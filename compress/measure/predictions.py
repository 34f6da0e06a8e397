"""Score a split with a runner, and keep what it said: predictions/<variant>.parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from serve.errors import InputError, UserError
from serve.runner import Runner, scores

if TYPE_CHECKING:
    from train.sources import Items

_BATCH = 64


class PredictionResult(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int
    errors: int


def predict(runner: Runner, items: Items, file: Path) -> PredictionResult:
    """Run the bytes of `items` through `runner` and write labels, predicted labels and scores to `file`."""
    answers = score_items(runner, items)
    predicted = answers.argmax(axis=1)
    table = pa.table(
        {
            "item": pa.array(np.arange(len(items))),
            "label": pa.array(items.labels),
            "predicted": pa.array(predicted),
            "scores": pa.FixedSizeListArray.from_arrays(pa.array(answers.ravel()), answers.shape[1]),
        }
    )
    pq.write_table(table, file)
    return PredictionResult(n=len(items), errors=int((predicted != items.labels).sum()))


def score_items(runner: Runner, items: Items) -> np.ndarray:
    """The scores of all items: float32 [N, K]. Raises UserError for an item that cannot be prepared."""
    return np.concatenate([_scores(runner, items, start) for start in range(0, len(items), _BATCH)])


def _scores(runner: Runner, items: Items, start: int) -> np.ndarray:
    """The scores of the batch that begins at `start`. Raises UserError for an item that cannot be prepared."""
    batch = items.content[start : start + _BATCH]
    try:
        return scores(runner, batch)
    except InputError as error:
        from train.inputs import unreadable  # torch stays out of the process that only reads scores

        for row, item in enumerate(batch, start=start):
            try:
                scores(runner, [item])
            except InputError as problem:
                raise unreadable(items, row, problem) from None
        raise error


def read_scores(file: Path) -> np.ndarray:
    """The scores float32 [N, K] of a predictions file."""
    column = _read(file, "scores")
    answers: np.ndarray = column.flatten().to_numpy().reshape(len(column), -1)
    return answers


def read_labels(file: Path) -> np.ndarray:
    """The true labels int64 [N] of a predictions file."""
    labels: np.ndarray = _read(file, "label").to_numpy()
    return labels


def _read(file: Path, column: str) -> pa.Array:
    try:
        return pq.read_table(file, columns=[column]).column(column).combine_chunks()
    except (OSError, pa.ArrowInvalid):
        raise UserError(f"no predictions in {file}", "run the recipe again: it redoes what is missing") from None
