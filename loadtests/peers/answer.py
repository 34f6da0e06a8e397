"""What every contender computes: one item in, the content of our own answer out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from serve.locate import find_package
from serve.predictor import Predictor
from serve.runner import scores

TOP_K = 3


class Model:
    """A package, else the one that LIMBECK_PACKAGE names, through the predictor that our own server uses."""

    def __init__(self, package: Path | None = None) -> None:
        self.predictor = Predictor.load(find_package(package))
        self.task = self.predictor.package.manifest.task
        self._model = {"id": self.predictor.package.manifest.id, "name": self.predictor.package.name}
        self.answer(self.predictor.preparer.sample())

    def answer(self, item: bytes) -> dict[str, Any]:
        """As `POST /classify` answers one item, in JSON's types."""
        row = scores(self.predictor, [item])[0]
        best = np.argsort(-row, kind="stable")[:TOP_K]
        labels = self.predictor.labels
        top = [{"label": labels[k], "score": score} for k, score in zip(best.tolist(), row[best].tolist(), strict=True)]
        return {"model": self._model, "predictions": [{**top[0], "top_k": top}]}
