"""Small graphs of a transformer's shape, written node by node: no export, so that tests of graphs are fast."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from serve.predictor import OUTPUT, open_session
from serve.runner import softmax

TOKENS, HIDDEN, INNER, CLASSES = 60, 32, 64, 3


class Ids:
    """Texts as a prepared split: ids int64 [N, L] of one length."""

    lengths = None

    def __init__(self, ids: np.ndarray) -> None:
        self.ids, self.labels = ids, np.zeros(len(ids), dtype=np.int64)
        self.gathered: list[int] = []  # items of each batch that was asked for

    def __len__(self) -> int:
        return len(self.ids)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        self.gathered.append(len(rows))
        return self.ids[rows]

    def workers(self, batch_size: int) -> int:
        return 0


def ids(count: int = 96, length: int = 12, seed: int = 0) -> Ids:
    return Ids(np.random.default_rng(seed).integers(0, TOKENS, (count, length)))


def _tensors(outlier: float, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    gamma = np.ones(HIDDEN)
    gamma[[3, 17]] = outlier
    tensors = {
        "table": random.normal(size=(TOKENS, HIDDEN)),
        "gamma": gamma,
        "beta": random.normal(size=HIDDEN) / 10,
        "ones": np.ones(HIDDEN),
        "query": random.normal(size=(HIDDEN, HIDDEN)) / 8,
        "value": random.normal(size=(HIDDEN, HIDDEN)) / 6,
        "value_bias": random.normal(size=HIDDEN) / 10,
        "up": random.normal(size=(HIDDEN, INNER)) / 6,
        "up_bias": random.normal(size=INNER) / 10,
        "down": random.normal(size=(INNER, HIDDEN)) / 8,
        "down_bias": random.normal(size=HIDDEN) / 10,
        "head": random.normal(size=(HIDDEN, CLASSES)),
        "head_bias": np.zeros(CLASSES),
    }
    tensors["table"][0] = 0  # a token that says nothing
    for name in ("query", "value"):  # rows that read the large columns are small, as training makes them
        tensors[name][[3, 17]] /= outlier
    return tensors


def _nodes() -> list[onnx.NodeProto]:
    def node(operator: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node(operator, inputs.split(), [output], name=f"make_{output}", **attributes)

    return [
        node("Gather", "table ids", "embedded"),
        node("LayerNormalization", "embedded gamma beta", "normed", axis=-1),
        node("MatMul", "normed query", "queries"),
        node("Transpose", "normed", "keys", perm=[0, 2, 1]),
        node("MatMul", "queries keys", "similar"),
        node("Softmax", "similar", "attention", axis=-1),
        node("MatMul", "normed value", "value_product"),
        node("Add", "value_product value_bias", "values"),
        node("MatMul", "attention values", "context"),
        node("LayerNormalization", "context ones", "normed_context", axis=-1),
        node("MatMul", "normed_context up", "up_product"),
        node("Add", "up_product up_bias", "inner"),
        node("Gelu", "inner", "active"),
        node("MatMul", "active down", "down_product"),
        node("Add", "down_product down_bias", "projected"),
        node("Add", "projected context", "summed"),
        node("ReduceMean", "summed axis", "pooled", keepdims=0),
        node("Gemm", "pooled head head_bias", OUTPUT),
    ]


def transformer(outlier: float = 1.0, seed: int = 0) -> onnx.ModelProto:
    """`ids` int64 [N, L] to `logits` float32 [N, 3]: embeddings, attention, a feed-forward part, norms, a head.

    `outlier` is how many times larger than the others two columns of the first norm are, as in trained transformers.
    """
    tensors, nodes = _tensors(outlier, seed), _nodes()
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()]
    constants.append(numpy_helper.from_array(np.array([1]), "axis"))
    graph = helper.make_graph(
        nodes,
        "transformer",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "l"])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", CLASSES])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def plain(opset: int = 20) -> onnx.ModelProto:
    """The same signature without attention: a product right after the table, the mean, a head.

    Below opset 18 the mean has its axes as an attribute, above as an input.
    """
    tensors = _tensors(1.0, 0)
    constants = [
        numpy_helper.from_array(tensors[name].astype(np.float32), name) for name in ("table", "up", "down", "head")
    ]
    constants.append(numpy_helper.from_array(np.array([1]), "axis"))
    old = opset < 18
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"], name="lookup"),
        helper.make_node("MatMul", ["embedded", "up"], ["inner"], name="up"),
        helper.make_node("MatMul", ["inner", "down"], ["outer"], name="down"),
        helper.make_node(
            "ReduceMean",
            ["outer"] if old else ["outer", "axis"],
            ["pooled"],
            name="mean",
            keepdims=0,
            **({"axes": [1]} if old else {}),
        ),
        helper.make_node("MatMul", ["pooled", "head"], [OUTPUT], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "l"])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", CLASSES])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def logits(model: onnx.ModelProto | bytes, items: Ids, batch: int = 32) -> np.ndarray:
    """float32 [N, 3], `batch` items at a time."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    session = open_session(content, 1, "test")
    starts = range(0, len(items), batch)
    return np.concatenate([session.run([OUTPUT], {"ids": items.ids[at : at + batch]})[0] for at in starts])


def scores(model: onnx.ModelProto | bytes, items: Ids, batch: int = 32) -> np.ndarray:
    return softmax(logits(model, items, batch), 1.0)


def operators(model: onnx.ModelProto | bytes) -> list[str]:
    graph = onnx.load_from_string(model).graph if isinstance(model, bytes) else model.graph
    return [node.op_type for node in graph.node]
