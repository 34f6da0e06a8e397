"""The runner of the baseline: a classifier in torch eager, behind the same decoding as the served package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from kernels.fuse import FuseOptions, fuse, unfuse
from kernels.ledger import Ledger
from serve.runner import softmax
from train.classifier import Classifier
from train.fused import Kernels
from train.fused_front import ALL_KINDS


class TorchRunner:
    """Scores request bytes with a classifier, fp32, on the device where it is; `serve.runner.Runner`.

    With `kernels` "auto" the first batch decides on an NVIDIA GPU which fused kernels stay in the classifier;
    `ledger` says what came of it, None before.
    """

    provider = "torch eager"

    def __init__(self, classifier: Classifier, kernels: Kernels = "auto") -> None:
        self.labels = classifier.spec.labels
        self.preparer = classifier.preparer()
        self.ledger: Ledger | None = None
        unfuse(classifier)
        self._classifier, self._kernels = classifier.eval(), kernels

    def prepare(self, items: Sequence[bytes]) -> np.ndarray:
        return self.preparer.prepare(items)

    def compute(self, inputs: np.ndarray) -> np.ndarray:
        return softmax(self.logits(inputs), temperature=1.0)

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(inputs).to(next(self._classifier.parameters()).device)
        if self.ledger is None and self._kernels == "auto":
            self.ledger = fuse(self._classifier, (batch,), FuseOptions(backward=False, kinds=ALL_KINDS))
            if self.ledger.kept:
                self.provider = f"torch eager, {len(self.ledger.kept)} fused layers"
        with torch.inference_mode():
            logits: np.ndarray = self._classifier(batch).cpu().numpy()
        return logits
