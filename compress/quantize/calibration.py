"""The calibration split as ONNX Runtime's calibrators read it: batch by batch."""

from __future__ import annotations

import numpy as np
from onnxruntime.quantization import CalibrationDataReader

from train.inputs import Inputs

BATCH = 32


class Reader(CalibrationDataReader):
    """Gives all of `inputs` under the graph input `name`; `read` counts the items that were given."""

    def __init__(self, inputs: Inputs, name: str) -> None:
        self._inputs, self._name = inputs, name
        self.read = 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next items, uint8 [N, H, W, C] or int64 [N, L]; None after the last."""
        rows = np.arange(self.read, min(self.read + BATCH, len(self._inputs)))
        self.read += len(rows)
        return {self._name: self._inputs.gather(rows)} if len(rows) else None
