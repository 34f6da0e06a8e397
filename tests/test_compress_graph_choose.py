"""A rewrite stays where the graph says the same and is measured faster, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.graph import build as building
from compress.graph import timing
from compress.graph.build import rewritten
from compress.graph.choose import Chooser, told
from compress.graph.rewrites import Rewrite
from compress.graph.timing import Timed, judge, time_in_turn
from compress.quantize.config import Quantize
from serve.predictor import OUTPUT
from train.inputs import ImageInputs

RANDOM = np.random.default_rng(0)
ITEMS = [RANDOM.normal(size=(1, 4)).astype(np.float32) for _ in range(50)]


def chain(*operators: str) -> bytes:
    """x -> each of the operators -> logits [N, 4]; Add adds a row that decides the label."""
    names = ["x", *(f"t{number}" for number in range(len(operators) - 1)), OUTPUT]
    nodes = [
        helper.make_node(operator, [names[at], "row"] if operator == "Add" else [names[at]], [names[at + 1]])
        for at, operator in enumerate(operators)
    ]
    shape = ["n", 4]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array([0, 9, 0, 0], dtype=np.float32), "row")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def nodes(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


def without(operator: str) -> Rewrite:
    """A rewrite that leaves the nodes of a kind out of a chain."""

    def apply(model: onnx.ModelProto) -> onnx.ModelProto:
        left = [node.op_type for node in model.graph.node if node.op_type != operator]
        return onnx.load_from_string(chain(*left))

    return Rewrite(f"without-{operator}", f"no {operator}", apply, frozenset([operator]))


class Watch:
    """A timer by which a graph takes as long as a function says."""

    def __init__(self, **faster: bool) -> None:
        self.faster, self.asked = faster, 0

    def __call__(self, before: bytes, after: bytes) -> Timed:
        self.asked += 1
        gone = set(nodes(before)) - set(nodes(after))
        faster = all(self.faster.get(name, False) for name in gone) or (len(gone) > 1 and self.faster.get("all", False))
        return Timed(2.0, 1.0 if faster else 2.0, 7, faster)


def chooser(watch: Watch, *rewrites: Rewrite) -> Chooser:
    model = chain("Identity", "Relu", "Relu", "Abs")
    return Chooser(model, lambda fp32: fp32, [np.abs(item) for item in ITEMS], "x", watch, rewrites)


def test_what_is_faster_stays_and_what_is_not_goes() -> None:
    chosen = chooser(watch := Watch(Identity=True, Abs=False), without("Identity"), without("Abs"))
    assert nodes(chosen.choose()) == ["Relu", "Relu", "Abs"]
    assert [(one.name, one.kept) for one in chosen.tried] == [("without-Identity", True), ("without-Abs", False)]
    assert (chosen.tried[0].before_ms, chosen.tried[0].after_ms, chosen.tried[0].rounds) == (2.0, 1.0, 7)
    assert told(chosen.tried) == {
        "without-Identity": "kept, 0.50 of the time",
        "without-Abs": "not kept, 1.00 of the time",
    }
    assert watch.asked == 2


def test_what_is_too_small_alone_is_tried_together() -> None:
    chosen = chooser(Watch(all=True), without("Identity"), without("Abs"))
    assert nodes(chosen.choose()) == ["Relu", "Relu"]
    assert [one.kept for one in chosen.tried] == [False, False, True]
    assert chosen.tried[-1].name == "without-Identity+without-Abs"


def test_a_rewrite_that_changes_scores_is_refused_unmeasured() -> None:
    watch = Watch(Relu=True)
    chosen = Chooser(chain("Identity", "Relu"), lambda fp32: fp32, ITEMS, "x", watch, [without("Relu")])
    assert nodes(chosen.choose()) == ["Identity", "Relu"]
    assert not chosen.tried[0].kept
    assert "moves a score" in chosen.tried[0].why
    assert watch.asked == 0


def test_a_rewrite_after_which_the_variant_changes_labels_is_refused() -> None:
    """As it may be where the fp32 graphs agree and the quantized do not."""

    def build(fp32: bytes) -> bytes:
        return chain("Identity", "Relu") if "Identity" in nodes(fp32) else chain("Add")

    watch = Watch(Identity=True)
    chosen = Chooser(chain("Identity", "Relu"), build, ITEMS, "x", watch, [without("Identity")])
    assert nodes(chosen.choose()) == ["Identity", "Relu"]
    assert "labels change" in chosen.tried[0].why
    assert watch.asked == 0


def test_a_rewrite_that_fails_is_left_out_and_said_and_the_next_is_tried() -> None:
    def fail(model: onnx.ModelProto) -> onnx.ModelProto:
        raise KeyError("axes")

    def misfit(model: onnx.ModelProto) -> onnx.ModelProto:
        return onnx.load_from_string(chain("NoSuchOperator"))

    failing = [Rewrite(name, name, apply, frozenset(["Identity"])) for name, apply in (("a", fail), ("b", misfit))]
    chosen = chooser(Watch(Identity=True), *failing, without("Identity"))
    assert nodes(chosen.choose()) == ["Relu", "Relu", "Abs"]
    assert [(one.name, one.kept) for one in chosen.tried] == [("a", False), ("b", False), ("without-Identity", True)]
    assert chosen.tried[0].why == "it fails on this graph: 'axes'"
    assert "NoSuchOperator" in chosen.tried[1].why
    assert told(chosen.tried)["a"] == "not kept, it fails on this graph: 'axes'"


def test_a_rewrite_that_is_right_for_one_item_and_not_for_several_is_refused() -> None:
    def first_of_all(model: onnx.ModelProto) -> onnx.ModelProto:
        changed = onnx.load_from_string(chain("Identity", "Relu"))
        changed.graph.node[0].op_type = "ReduceMax"  # over the batch
        changed.graph.node[0].input.append("axes")
        changed.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axes"))
        return changed

    rewrite = Rewrite("first", "one of all", first_of_all, frozenset(["Identity"]))
    for together, kept in ((None, True), (np.concatenate(ITEMS[:7]), False)):
        watch = Watch(Identity=True)
        model = chain("Identity", "Relu")
        chosen = Chooser(model, lambda fp32: fp32, ITEMS, "x", watch, [rewrite], together)
        assert (chosen.choose() != onnx.load_from_string(model).SerializeToString()) is kept
        assert chosen.tried[0].kept is kept
        assert ("moves a score" in chosen.tried[0].why) is not kept


def times(*medians: float) -> np.ndarray:
    return np.repeat(np.array(medians).reshape(2, 3, 1), 5, axis=2) / 1e3


@pytest.mark.parametrize(
    ("medians", "faster"),
    [
        ((3.0, 3.1, 3.2, 2.7, 2.8, 2.9), True),
        ((3.0, 3.1, 3.2, 2.7, 2.8, 3.05), False),  # one session as slow as those before: within noise
        ((3.0, 3.0, 3.0, 2.99, 2.99, 2.99), False),  # for certain, but not worth it
        ((3.0, 3.1, 3.2, 3.3, 3.4, 3.5), False),
    ],
)
def test_faster_is_what_no_session_contradicts(medians: tuple[float, ...], faster: bool) -> None:
    judged = judge([times(*medians)])
    assert judged.faster is faster
    assert (judged.before_ms, judged.after_ms) == pytest.approx((medians[1], medians[4]))


def test_what_is_a_little_faster_is_found_by_more_sessions() -> None:
    """2 % less, where a session is up to 3 % off: three against three leave it open, nine against nine do not."""
    a, b, c = (
        (3.0, 3.06, 3.12, 2.94, 3.0, 3.04),
        (3.02, 3.07, 3.1, 2.95, 2.99, 3.06),
        (3.01, 3.05, 3.11, 2.93, 2.98, 3.03),
    )
    assert not judge([times(*a)]).faster
    judged = judge([times(*some) for some in (a, b, c)])
    assert judged.faster
    assert judged.rounds == 15


@pytest.mark.parametrize(
    ("found", "goes"),
    [
        ((3.0, 3.1, 3.2, 2.7, 2.8, 2.9), 1),  # certain at once
        ((3.0, 3.1, 3.2, 3.0, 3.1, 3.2), 1),  # nothing to be had
        ((3.0, 3.1, 3.2, 2.85, 2.95, 3.05), 2),  # certain with six against six
        ((3.0, 3.1, 3.9, 2.9, 3.0, 4.0), 3),  # not certain after all
    ],
)
def test_a_graph_gets_further_goes_while_it_seems_faster(
    found: tuple[float, ...], goes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def go(*arguments: object) -> np.ndarray:
        seen.append(int(str(arguments[-1])))
        return times(*found)

    monkeypatch.setattr(timing, "_go", go)
    judged = time_in_turn(ITEMS, "x")(b"", b"")
    assert seen == list(range(goes))  # seeds: each its own order of rounds
    assert judged.faster is (goes < 3 and found[0] != found[3])


def test_graphs_are_timed_on_the_items() -> None:
    timed = time_in_turn(ITEMS, "x")(chain("Relu"), chain("Relu", "Abs"))
    assert timed.before_ms > 0
    assert timed.after_ms > 0
    assert timed.rounds >= 12


@pytest.mark.parametrize("smallest", [0, 1_000_000])
def test_a_graph_that_nothing_fits_stays_byte_for_byte(smallest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_SMALLEST", smallest)
    none = ImageInputs(np.zeros((0, 1, 1, 1), dtype=np.uint8), np.zeros(0, dtype=np.int64))
    model = chain("Identity", "Relu")
    assert rewritten(model, "fp32", none, Quantize(), ITEMS, "x") == (model, [])
