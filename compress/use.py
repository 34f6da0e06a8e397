"""A model package from Python: what `limbeck serve` would answer, without a server.

N items, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.evidence.statistics import accuracy_interval
from serve.answers import Namer
from serve.errors import InputError, UserError, did_you_mean, said
from serve.locate import find_package
from serve.predictor import Predictor

Item = str | bytes | Path  # a text; or an image as its bytes, or as the path of its file
_DEFAULT_TOP_K = 3


@dataclass(frozen=True)
class Evaluation:
    """How right a model is on labelled items. Rates are 0..1."""

    n: int
    accuracy: float
    accuracy_ci95: tuple[float, float]  # Wilson's interval
    macro_f1: float
    ece: float  # expected calibration error of the best score
    predicted: tuple[str, ...]  # the label given to each item


class Model:
    """A loaded package. Safe to call from several threads."""

    def __init__(self, predictor: Predictor) -> None:
        manifest = predictor.package.manifest
        self.id = manifest.id
        self.name = predictor.package.name
        self.task = manifest.task
        self.labels = manifest.labels
        self.card = predictor.package.card
        self._predictor = predictor
        self._namer = Namer(self.labels, manifest.abstain_below)

    def classify(self, items: Sequence[Item], top_k: int | None = None) -> list[dict[str, Any]]:
        """The prediction of each item, as POST /classify gives it: label, score, top_k, and the marks of doubt.

        Each item is run alone, as a server without batching runs it. Raises UserError, with its number, for an item
        that cannot be read.

        >>> model = load("runs/sst2")                          # doctest: +SKIP
        >>> model.classify(["a lovely film"])[0]["label"]      # doctest: +SKIP
        'positive'
        """
        wanted = min(_DEFAULT_TOP_K, len(self.labels)) if top_k is None else top_k
        if not 1 <= wanted <= len(self.labels):
            raise UserError(f"top_k is {wanted}", f"ask for 1 to {len(self.labels)}, as many as there are labels")
        prepared = self._prepared(items)
        named = self._namer.name(self._scored([inputs for inputs, _ in prepared]), wanted)
        marks = [{"truncated": True} if truncated else {} for _, truncated in prepared]
        return [{**prediction, **mark} for prediction, mark in zip(named, marks, strict=True)]

    def scores(self, items: Sequence[Item]) -> np.ndarray:
        """float32 [N, K], in the order of `labels`; rows sum to 1. Raises UserError as `classify` does."""
        return self._scored([inputs for inputs, _ in self._prepared(items)])

    def _prepared(self, items: Sequence[Item]) -> list[tuple[np.ndarray, bool]]:
        if isinstance(items, (str, bytes)):
            raise UserError("items is one item, not a list of them", "put it into a list: [item]")
        prepare = self._predictor.preparer.prepare_one
        prepared = []
        for number, item in enumerate(items):
            try:
                prepared.append(prepare(self._bytes(item)))
            except InputError as error:
                raise UserError(f"item {number}: {error}", error.hint) from None
            except OSError as error:
                raise UserError(
                    f"item {number}: cannot read {item!s}: {said(error)}", "expected an image file"
                ) from None
            except UnicodeEncodeError as error:
                hint = 'mend the text, for example text.encode("utf-8", "replace").decode()'
                raise UserError(f"item {number}: the text is not valid Unicode: {error.reason}", hint) from None
        return prepared

    def _bytes(self, item: Item) -> bytes:
        if isinstance(item, Path):
            return item.read_bytes()
        if isinstance(item, bytes):
            return item
        if self.task == "image":
            raise UserError(
                f"an image is given as text: {item[:40]!r}",
                "give its bytes, or Path(...) of its file; nothing is guessed",
            )
        return item.encode("utf-8")

    def _scored(self, batches: Sequence[np.ndarray]) -> np.ndarray:
        rows = [self._predictor.compute(batch) for batch in batches]
        return np.concatenate(rows) if rows else np.zeros((0, len(self.labels)), dtype=np.float32)


def load(target: Path | str | None = None, threads: int | None = None) -> Model:
    """The model of a package's folder, or of a run, which stands for what it selected; by default the newest run's.

    `threads` are those of one model run; by default the package's own. Raises UserError.

    >>> load("runs/digits").labels  # doctest: +SKIP
    ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
    """
    return Model(Predictor.load(find_package(None if target is None else Path(target)), threads))


def evaluate(model: Model | Path | str, items: Sequence[Item], labels: Sequence[str]) -> Evaluation:
    """How often the model gives the items their `labels`, which are names. Raises UserError.

    >>> evaluate("runs/sst2", ["a lovely film", "a dull one"], ["positive", "negative"])  # doctest: +SKIP
    Evaluation(n=2, accuracy=1.0, accuracy_ci95=(0.342, 1.0), ...)
    """
    from train.metrics import measure  # torch, which loading and classifying do without

    loaded = model if isinstance(model, Model) else load(model)
    if len(items) != len(labels) or not labels:
        raise UserError(f"items: {len(items)}, labels: {len(labels)}", "give one label for each item, and at least one")
    numbers = {label: number for number, label in enumerate(loaded.labels)}
    for label in labels:
        if label not in numbers:
            raise UserError(f"the model knows no label {label!r}", did_you_mean(str(label), loaded.labels))
    scores = loaded.scores(items)
    found = measure(scores, np.array([numbers[label] for label in labels]))
    right = found.n - found.errors
    predicted = tuple(loaded.labels[best] for best in scores.argmax(axis=1))
    interval = accuracy_interval(right, found.n)
    return Evaluation(found.n, found.accuracy, interval, found.macro_f1, found.ece, predicted)
