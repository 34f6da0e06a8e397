"""Why a package answers otherwise than what it was made from: told in words, not left as a drop that is too large.

Three causes are told apart, by looking rather than by guessing: answers that are the parent's under other labels; fixed
ranges that do not fit the items (a bad calibration set); and, failing these, the first node that computes something
else than the parent's does, as a damaged or transposed weight makes it.

N items, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper
from scipy.optimize import linear_sum_assignment

from compress.quantize.calibration import watch
from serve.errors import UserError
from train.inputs import Inputs

AGREEMENT = 0.9  # of the labels; less is a collapse that needs a reason
_PERMUTED = 0.9  # of the labels under another order of the classes; more, where the plain ones do not, is no accident
_CUT = 0.05  # share of a tensor's values outside of its range
_LEVELS = 0.1  # share of a range that its values use
_ERROR = 0.5  # of a tensor's own size: something else is computed
_ITEMS = 32
_MOSTLY_WRONG, _MOSTLY_RIGHT = 0.5, 0.7  # no training leads below the one and, under another order, above the other


def diagnose(
    ours: np.ndarray,
    theirs: np.ndarray,
    classes: Sequence[str],
    against: str,
    model: bytes,
    parent: bytes,
    items: Inputs,
) -> str:
    """One sentence on why scores `ours` [N, K] are not `theirs`; empty where their labels agree on 90 % and more.

    `model` and `parent` are the graphs that gave them, `items` the inputs.
    """
    agreement = float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())
    if agreement >= AGREEMENT:
        return ""
    told = f"its answers agree with those of {against} on only {agreement:.0%} of {len(ours):,} items"
    cause = permuted(ours.argmax(axis=1), theirs.argmax(axis=1), classes)
    if not cause:
        cause = _misfit(model, items) or _first_difference(model, parent, items)
    return f"{told}: {cause}" if cause else f"{told}, and no single node is the cause"


def permuted(ours: np.ndarray, theirs: np.ndarray, classes: Sequence[str], enough: float = _PERMUTED) -> str:
    """How the labels int64 [N] of one are those of the other in another order; empty where they are not.

    They are where `enough` of them agree under one map of the classes, and do not as they stand.
    """
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (theirs, ours), 1)
    rows, columns = linear_sum_assignment(-counts)
    agreeing = counts[rows, columns].sum() / max(len(ours), 1)
    moved = [(row, column) for row, column in zip(rows, columns, strict=True) if row != column and counts[row, column]]
    if agreeing < enough or not moved or np.trace(counts) / max(len(ours), 1) >= enough:
        return ""
    shown = ", ".join(f"'{classes[row]}' is called '{classes[column]}'" for row, column in moved[:3])
    more = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
    return f"the label map is permuted: {shown}{more}; under that map {agreeing:.0%} agree"


def check_label_map(predicted: np.ndarray, labels: np.ndarray, classes: Sequence[str], model: str) -> None:
    """Raise UserError where a model is mostly wrong, int64 [N] each, and would be right under another order of labels.

    All that is made of it would be held against its wrong answers, and pass.
    """
    right = float((predicted == labels).mean())
    if right >= _MOSTLY_WRONG:
        return
    how = permuted(predicted, labels, classes, _MOSTLY_RIGHT)
    if how:
        raise UserError(
            f"{how} with the labels of the validation split, where {model} is right on {right:.0%} as it stands",
            "its id2label (config.json; of an ONNX file the labels beside it), or the label column of the data, is in "
            "another order than it was trained with",
        )


@dataclass(frozen=True)
class _Range:
    """What a QuantizeLinear with a fixed scale can hold of a tensor."""

    node: str  # the node that reads the quantized tensor
    low: float
    high: float


def _misfit(model: bytes, items: Inputs) -> str:
    """The first node, in the order of computation, whose fixed range does not fit these items."""
    graph = onnx.load_from_string(model)
    ranges = _ranges(graph)
    outside, count = dict.fromkeys(ranges, 0), dict.fromkeys(ranges, 0)
    low, high = dict.fromkeys(ranges, np.inf), dict.fromkeys(ranges, -np.inf)

    def take(values: dict[str, np.ndarray]) -> None:
        for name, value in values.items():
            span = ranges[name]
            slack = (span.high - span.low) / 255  # a value is cut off where it is a level and more outside
            outside[name] += int(((value < span.low - slack) | (value > span.high + slack)).sum())
            count[name] += value.size
            low[name], high[name] = min(low[name], float(value.min())), max(high[name], float(value.max()))

    if ranges:
        watch(graph, list(ranges), items, take, _ITEMS)
    for name, span in ranges.items():
        if low[name] == high[name] == 0:  # any range holds it, and dead units are no sign of other items
            continue
        cut, used = outside[name] / count[name], (high[name] - low[name]) / (span.high - span.low)
        if cut <= _CUT and used >= _LEVELS:
            continue
        effect = f"so {cut:.0%} of its values are cut off"
        if cut <= _CUT:
            effect = f"which leaves them {max(1, round(256 * used))} of 256 levels"
        return (
            f"the calibration range of node '{span.node}' covers {span.low:.3g} to {span.high:.3g}, and these items "
            f"reach {low[name]:.3g} to {high[name]:.3g}, {effect}: the calibration items are not like these"
        )
    return ""


def _ranges(model: onnx.ModelProto) -> dict[str, _Range]:
    """Tensor -> what its QuantizeLinear can hold, where scale and zero point are constants for the whole tensor."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    readers = {name: node.name for node in reversed(model.graph.node) for name in node.input}
    found = {}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or any(name not in constants for name in node.input[1:]):
            continue
        scale = constants[node.input[1]]
        zero = constants[node.input[2]] if len(node.input) > 2 else np.zeros((), np.uint8)
        if scale.size != 1 or zero.dtype not in (np.uint8, np.int8):
            continue
        limits, step = np.iinfo(zero.dtype), float(scale.item())
        reader = readers.get(node.output[0], node.name)
        passed = next((other for other in model.graph.node if other.name == reader), node)
        if passed.op_type == "DequantizeLinear":
            reader = readers.get(passed.output[0], reader)
        low, high = (step * (limit - int(zero.item())) for limit in (limits.min, limits.max))
        found[node.input[0]] = _Range(reader, low, high)
    return found


def _first_difference(model: bytes, parent: bytes, items: Inputs) -> str:
    """The first node, in the order of computation, whose output is not at all what the parent's is."""
    ours, theirs = onnx.load_from_string(model), onnx.load_from_string(parent)
    shared = [name for name in _made(theirs) if name in set(_made(ours))]
    if not shared:
        return ""
    here, there = _values(ours, shared, items), _values(theirs, shared, items)
    error = {name: _relative(here[name], there[name]) for name in shared if here[name].shape == there[name].shape}
    maker = {node.output[0]: node for node in ours.graph.node}
    for name, size in error.items():
        before = max((error[source] for source in _sources(maker, name) if source in error), default=0.0)
        if size > _ERROR and before < _ERROR / 2:
            return (
                f"node '{maker[name].name}' is the first to compute something else: its output is off by {size:.0%} of "
                f"its size, and its input by {before:.0%}"
            )
    return ""


def _sources(maker: dict[str, onnx.NodeProto], name: str) -> list[str]:
    """What a tensor is made of, seen through what quantizes: the tensors before these."""
    found: list[str] = []
    for source in maker[name].input:
        node = maker.get(source)
        through = node is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear")
        found += _sources(maker, source) if through else [source]
    return found


def _made(model: onnx.ModelProto) -> list[str]:
    """Float tensors that nodes make, in the order of computation."""
    inferred = onnx.shape_inference.infer_shapes(model)
    entries = (*inferred.graph.value_info, *inferred.graph.output)
    floats = {entry.name for entry in entries if entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return [name for node in model.graph.node for name in node.output if name in floats]


def _values(model: onnx.ModelProto, names: list[str], items: Inputs) -> dict[str, np.ndarray]:
    """Tensors of the first batch of items."""
    found: dict[str, np.ndarray] = {}

    def take(values: dict[str, np.ndarray]) -> None:
        for name, value in values.items():
            found.setdefault(name, value)

    watch(model, names, items, take, _ITEMS)
    return found


def _relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The size of the difference over that of `theirs`, infinite for what is no number; masks of -3e38 are left out."""
    usual = np.abs(theirs) < 1e30
    size = float(np.linalg.norm(theirs[usual]))
    error = float(np.linalg.norm((ours - theirs)[usual]))
    return np.inf if np.isnan(error) else error / size if size > 0 else 0.0
