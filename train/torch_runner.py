"""The runner of the baseline: a classifier in torch eager, behind the same decoding as the served package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from serve.runner import softmax
from train.classifier import Classifier


class TorchRunner:
    """Scores request bytes with a classifier, fp32, on the CPU; `serve.runner.Runner`."""

    provider = "torch eager"

    def __init__(self, classifier: Classifier) -> None:
        self.labels = classifier.spec.labels
        self.preparer = classifier.preparer()
        self._classifier = classifier.eval()

    def prepare(self, items: Sequence[bytes]) -> np.ndarray:
        return self.preparer.prepare(items)

    def compute(self, inputs: np.ndarray) -> np.ndarray:
        return softmax(self.logits(inputs), temperature=1.0)

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits: np.ndarray = self._classifier(torch.from_numpy(inputs)).numpy()
        return logits
