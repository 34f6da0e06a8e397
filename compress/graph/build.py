"""The fp32 graph from which a variant is made, with the rewrites that this variant keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import onnx

from compress.graph.choose import Chooser, Tried
from compress.graph.timing import time_in_turn
from compress.quantize.config import Quantize
from compress.quantize.precisions import quantize
from serve.manifest import Precision
from train.inputs import Inputs

_SMALLEST = 1_000_000  # bytes; a smaller graph answers in microseconds, and a hundredth of that cannot be measured
_CALIBRATION = 32  # items while rewrites are tried: how long a static graph takes does not depend on its ranges


def rewritten(
    fp32: bytes,
    precision: Precision,
    calibration: Inputs,
    config: Quantize,
    items: Sequence[np.ndarray],
    name: str,
    together: np.ndarray | None = None,
) -> tuple[bytes, list[Tried]]:
    """The graph to be quantized to `precision`, and what was tried on it; nothing is on graphs below a megabyte.

    `items` are real ones of batch 1 as the input `name` takes them, on which graphs are compared and timed; `together`
    are several in one batch, on which they are compared as well.
    """
    if len(fp32) < _SMALLEST:
        return fp32, []
    few = cast(Inputs, _First(calibration, _CALIBRATION))
    # a search for what to leave in floating point, for each rewrite anew, would take as long as all else together
    kind: Precision = "int8-static" if precision == "int8-mixed" else precision
    timer = time_in_turn(items, name)
    chooser = Chooser(fp32, lambda model: quantize(model, kind, few, config), items, name, timer, together=together)
    chosen = chooser.choose()
    return (chosen if any(one.kept for one in chooser.tried) else fp32), chooser.tried


def hides_rewrites(fp32: bytes) -> bool:
    """Whether what fp32 has kept of the rewrites can hide others that pay in int8: where there is attention.

    Once tokens come first, a lone query is found no more.
    """
    return len(fp32) >= _SMALLEST and any(node.op_type == "Softmax" for node in onnx.load_from_string(fp32).graph.node)


class _First:
    """The first items of a split, for the quantizer to read."""

    def __init__(self, inputs: Inputs, count: int) -> None:
        self._inputs, self._count = inputs, min(count, len(inputs))
        self.labels = inputs.labels[: self._count]
        self.lengths = None if inputs.lengths is None else inputs.lengths[: self._count]

    def __len__(self) -> int:
        return self._count

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Model input of some rows."""
        return self._inputs.gather(rows)
