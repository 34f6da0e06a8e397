"""The ranges of activations on the calibration items, in memory that does not grow with their number.

Calibration items are a part of the training data that no model was trained on; their labels are never looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from compress.quantize.config import Quantize
from compress.quantize.histogram import LARGEST, Histogram
from serve.errors import LimbeckError, UserError
from train.inputs import Inputs

BATCH = 32
MEMORY_BYTES = 2**28  # the most that the activations of one batch may take
_MIN, _MAX = "_calibration_min", "_calibration_max"
Ranges = dict[str, tuple[np.ndarray, np.ndarray]]  # tensor -> lowest and highest value, float32 scalars


def calibrate(model: onnx.ModelProto, tensors: Collection[str], inputs: Inputs, config: Quantize) -> Ranges:
    """The range of each of `tensors` of the float graph `model`, by config.calibration; of none where there are none.

    What a mask puts into a tensor is not in its range: infinities, and what is larger than any activation.
    Raises LimbeckError where not all items were read (Olive#2609: 30 of 128 samples, and nobody was told), and
    UserError where a value is no number.
    """
    if not tensors:
        return {}
    if config.calibration == "min-max":
        ranges = _extremes(model, tensors, inputs)
        masked = [name for name, ends in ranges.items() if max(np.abs(ends)) > LARGEST]
        seen = _histograms(model, masked, inputs)
        return ranges | _rounded({name: histogram.range for name, histogram in seen.items()})
    seen = _histograms(model, tensors, inputs)
    if config.calibration == "percentile":
        return _rounded({name: histogram.percentile_range(config.percentile) for name, histogram in seen.items()})
    return _rounded({name: histogram.entropy_range() for name, histogram in seen.items()})


def _rounded(ranges: dict[str, tuple[float, float]]) -> Ranges:
    return {name: (np.array(low, np.float32), np.array(high, np.float32)) for name, (low, high) in ranges.items()}


def _histograms(model: onnx.ModelProto, tensors: Collection[str], inputs: Inputs) -> dict[str, Histogram]:
    histograms = {name: Histogram() for name in tensors}

    def add(values: dict[str, np.ndarray]) -> None:
        for name, value in values.items():
            if np.isnan(value).any():
                raise _no_number(name)
            histograms[name].add(value)

    watch(model, tensors, inputs, add)
    return histograms


def _no_number(tensor: str) -> UserError:
    return UserError(
        f"the model computes something that is no number on the calibration items, in its tensor '{tensor}'",
        "its weights are damaged, or an item is beyond what it was made for: look at its fp32 answers on these items",
    )


def watch(
    model: onnx.ModelProto,
    tensors: Collection[str],
    inputs: Inputs,
    take: Callable[[dict[str, np.ndarray]], None],
    items: int | None = None,
) -> None:
    """Give the values of `tensors` to `take`, batch after batch; of the first `items` only, where that is said.

    One item shows how much memory an item takes, and so how many may come together. Nothing is run for no tensors.
    """
    if not tensors:
        return
    session = _session(_with_outputs(model, tensors))
    names, count = list(tensors), len(inputs) if items is None else min(items, len(inputs))
    name = model.graph.input[0].name
    first = session.run(names, {name: inputs.gather(np.arange(1))}) if count else []
    size = max(1, min(BATCH, MEMORY_BYTES // max(1, sum(value.nbytes for value in first))))
    read = 0
    for rows in _batches(count, size):
        take(dict(zip(names, session.run(names, {name: inputs.gather(rows)}), strict=True)))
        read += len(rows)
    _check_read(read, count)


def _extremes(model: onnx.ModelProto, tensors: Collection[str], inputs: Inputs) -> Ranges:
    """The smallest and largest value of each tensor; the graph itself reduces them, so little leaves it."""
    names = list(tensors)
    session = _session(_with_extremes(model, names))
    outputs = [name + end for name in names for end in (_MIN, _MAX)]
    lows, highs, read = np.full(len(names), np.inf), np.full(len(names), -np.inf), 0
    for rows in _batches(len(inputs), BATCH):
        found = np.array(session.run(outputs, {model.graph.input[0].name: inputs.gather(rows)})).reshape(-1, 2)
        lows, highs, read = np.minimum(lows, found[:, 0]), np.maximum(highs, found[:, 1]), read + len(rows)
    _check_read(read, len(inputs))
    if np.isnan(lows).any():
        raise _no_number(names[int(np.flatnonzero(np.isnan(lows))[0])])
    pairs = zip(lows.astype(np.float32), highs.astype(np.float32), strict=True)
    return {name: (np.array(low), np.array(high)) for name, (low, high) in zip(names, pairs, strict=True)}


def _batches(count: int, size: int) -> Iterator[np.ndarray]:
    """Rows int64, `size` at a time."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def _check_read(read: int, count: int) -> None:
    if read != count or not count:
        raise LimbeckError(
            f"the quantizer read {read} of {count} calibration items", "this is a bug; please report it with the recipe"
        )


def _with_outputs(model: onnx.ModelProto, tensors: Collection[str]) -> onnx.ModelProto:
    watched = _copy(model)
    there = {entry.name for entry in watched.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in there)
    return watched


def _with_extremes(model: onnx.ModelProto, tensors: list[str]) -> onnx.ModelProto:
    watched = _copy(model)
    for name in tensors:
        for operator, end in (("ReduceMin", _MIN), ("ReduceMax", _MAX)):
            watched.graph.node.append(helper.make_node(operator, [name], [name + end], keepdims=0))
            watched.graph.output.append(helper.make_tensor_value_info(name + end, TensorProto.FLOAT, ()))
    return watched


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    """The graph as it stands: no node fused away, so that every tensor can be looked at."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
