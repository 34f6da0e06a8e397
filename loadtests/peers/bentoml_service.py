"""A BentoML service as its documentation shows one: typed parameters, a dict returned, every setting at its default.

    LIMBECK_PACKAGE=PACKAGE python -m bentoml serve loadtests.peers.bentoml_service:Text

https://docs.bentoml.com/en/latest/build-with-bentoml/services.html and .../iotypes.html (files as pathlib.Path).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bentoml

from loadtests.peers.answer import Model


@bentoml.service
class Text:
    """Classifies texts in JSON."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api
    def classify(self, inputs: list[str]) -> dict[str, Any]:
        return self.model.answer(inputs[0].encode())


@bentoml.service
class Image:
    """Classifies an image in a multipart form; BentoML hands it over as a file."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api
    def classify(self, files: Path) -> dict[str, Any]:
        return self.model.answer(files.read_bytes())
