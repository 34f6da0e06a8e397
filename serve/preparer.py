"""From the bytes of requests to the input of a graph: one implementation for training, evaluation and serving.

N items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from serve.errors import PackageError
from serve.images import ImagePreparer
from serve.manifest import ImagePreprocessing, TextPreprocessing
from serve.texts import TextPreparer

TOKENIZER = "tokenizer.json"


class Preparer(Protocol):
    """What turns request bytes into model input, for images or for texts."""

    input: str  # the name of the graph's input

    def prepare(self, items: Sequence[bytes]) -> np.ndarray:
        """Items to one batch: uint8 [N, H, W, C] or int64 [N, L]. Raises InputError for the first that cannot be."""

    def prepare_one(self, item: bytes) -> tuple[np.ndarray, bool]:
        """A batch of one item, and whether an end of it was cut off, since the model takes no more.

        Raises InputError.
        """

    def join(self, batches: Sequence[np.ndarray]) -> np.ndarray:
        """Several prepared batches as one."""

    def alone(self, batch: np.ndarray) -> list[np.ndarray]:
        """The items of a batch, each as it would be if it had been prepared alone."""

    def padded(self, batch: np.ndarray) -> np.ndarray:
        """The batch as it is beside a longer item: the model must give the same scores."""

    def sample(self) -> bytes:
        """Some item that can be prepared, to warm up with."""

    def fingerprint(self) -> str:
        """Equal for preparers that do the same."""

    def expected(self) -> str:
        """The type and shape of a batch, for errors."""


def new_preparer(spec: ImagePreprocessing | TextPreprocessing, files: Mapping[str, bytes]) -> Preparer:
    """The preparer that `spec` describes. `files` holds the tokenizer.json of a text model. Raises PackageError."""
    if isinstance(spec, ImagePreprocessing):
        return ImagePreparer(spec)
    if TOKENIZER not in files:
        raise PackageError(
            f"the model takes text, but there is no {TOKENIZER}", "write the package again, tokenizer included"
        )
    return TextPreparer(spec, files[TOKENIZER])
