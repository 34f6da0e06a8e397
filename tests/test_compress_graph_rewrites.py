"""Each rewrite of a graph: it does what it says, the answers stay, and it leaves alone what it does not fit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import image_models
import numpy as np
import onnx
import pytest
import text_models
from onnx import TensorProto, helper, numpy_helper
from text_models import WORDS, text_classifier

from compress.export import export_onnx
from compress.graph import build as building
from compress.graph.batch_norm import fold_batch_norms
from compress.graph.lone_query import ask_for_one
from compress.graph.mask import shorten_masks
from compress.graph.one_product import join_products
from compress.graph.plain_shapes import fix_reshapes
from compress.graph.positions import cut_positions, trim_positions
from compress.graph.residual import sum_residuals
from compress.graph.rewrites import REWRITES, try_on
from compress.graph.token_types import fold_token_type
from compress.graph.tokens_first import put_tokens_first
from serve.predictor import OUTPUT, open_session
from serve.runner import softmax
from train.classifier import Classifier

RANDOM = np.random.default_rng(0)
ITEMS = [" ".join(RANDOM.choice(WORDS, length)).encode() for length in (1, 2, 3, 5, 8, 13, 21, 29, 29)]
LAYERS, PRODUCTS = 2, 6  # of the tiny BERT; queries, keys and values of both


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return text_classifier(f"hf:{text_models.tiny_folder(tmp_path_factory.mktemp('bert'))}")


@pytest.fixture(scope="module")
def exported(bert: Classifier) -> onnx.ModelProto:
    return onnx.load_from_string(export_onnx(bert))


def count(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def answers(model: onnx.ModelProto, classifier: Classifier, batch: int) -> np.ndarray:
    session, preparer = open_session(model.SerializeToString(), 1, "test"), classifier.preparer()
    batches = [preparer.prepare(ITEMS[at : at + batch]) for at in range(0, len(ITEMS), batch)]
    return softmax(np.concatenate([session.run([OUTPUT], {preparer.input: some})[0] for some in batches]), 1.0)


def the_same(before: onnx.ModelProto, after: onnx.ModelProto, classifier: Classifier) -> None:
    onnx.checker.check_model(after, full_check=True)
    for batch in (1, 4):  # with padding too
        assert answers(after, classifier, batch) == pytest.approx(answers(before, classifier, batch), abs=1e-6)


def test_queries_keys_and_values_become_one_product(bert: Classifier, exported: onnx.ModelProto) -> None:
    after = join_products(exported)
    assert count(after)["MatMul"] == count(exported)["MatMul"] - PRODUCTS + LAYERS
    assert count(after)["Split"] == LAYERS
    the_same(exported, after, bert)


def test_one_product_where_tokens_come_first_leaves_nothing_to_transpose(
    bert: Classifier, exported: onnx.ModelProto
) -> None:
    """Of queries, keys and values: what the runtime leaves out of three products it leaves out of one that is split."""
    before = put_tokens_first(exported)
    after = join_products(before)
    assert count(after)["MatMul"] == count(before)["MatMul"] - PRODUCTS + LAYERS
    turns = [[tuple(n.attribute[0].ints) for n in m.graph.node if n.op_type == "Transpose"] for m in (before, after)]
    assert Counter(turns[0]) == Counter(turns[1])
    the_same(exported, after, bert)


def test_a_lone_query_leaves_out_keys_and_values(bert: Classifier, exported: onnx.ModelProto) -> None:
    after = ask_for_one(exported)
    assert count(after)["Squeeze"] == 1  # of its mask
    assert count(after)["Softmax"] == LAYERS
    shapes = onnx.shape_inference.infer_shapes(after).graph.value_info
    scores = [
        info
        for info in shapes
        for node in after.graph.node
        if node.op_type == "Softmax" and info.name == node.output[0]
    ]
    assert sorted(len(info.type.tensor_type.shape.dim) for info in scores) == [3, 4]  # [N, A, L], [N, A, L, L]
    the_same(exported, after, bert)


def test_tokens_first_leaves_queries_keys_and_values_as_they_are(bert: Classifier, exported: onnx.ModelProto) -> None:
    after = put_tokens_first(exported)
    turns = [tuple(node.attribute[0].ints) for node in after.graph.node if node.op_type == "Transpose"]
    assert Counter(turns) == {(1, 0, 2): 1, (1, 2, 0, 3): 4, (1, 2, 3, 0): 2, (2, 0, 1, 3): 2}
    the_same(exported, after, bert)


def test_residuals_become_sums(bert: Classifier, exported: onnx.ModelProto) -> None:
    after = sum_residuals(exported)
    assert count(after)["Sum"] == 2 * LAYERS + 1  # and the embeddings
    assert count(after)["Add"] == count(exported)["Add"] - count(after)["Sum"]
    the_same(exported, after, bert)


def test_shapes_that_are_not_computed(bert: Classifier, exported: onnx.ModelProto) -> None:
    after = fix_reshapes(exported)
    constants = {tensor.name for tensor in after.graph.initializer}
    assert all(node.input[1] in constants for node in after.graph.node if node.op_type == "Reshape")
    assert count(after)["Concat"] < count(exported)["Concat"]
    the_same(exported, after, bert)


def test_masks_without_a_double_negation(bert: Classifier, exported: onnx.ModelProto) -> None:
    after = shorten_masks(exported)
    assert count(exported)["Not"] == 1
    assert count(after)["Not"] == count(after)["Sub"] == 0
    the_same(exported, after, bert)


def test_the_token_type_is_folded_into_the_positions(bert: Classifier, exported: onnx.ModelProto) -> None:
    after = fold_token_type(exported)
    assert count(after)["Add"] == count(exported)["Add"] - 1
    the_same(exported, after, bert)
    apart = sum_residuals(exported)  # which makes a Sum of what it is to find
    after = fold_token_type(apart)
    assert count(after)["Add"] == count(apart)["Add"] - 1
    the_same(exported, after, bert)


def test_positions_are_cut_from_their_table(bert: Classifier, exported: onnx.ModelProto) -> None:
    for before in (exported, fold_token_type(exported)):
        after = cut_positions(before)
        assert count(after)["Gather"] == count(before)["Gather"] - 1
        assert count(after)["Slice"] == count(before)["Slice"]
        the_same(exported, after, bert)


def test_positions_beyond_the_longest_text_are_left_out(bert: Classifier, exported: onnx.ModelProto) -> None:
    longest = bert.spec.preprocessing.max_length
    table = bert.network.model.bert.embeddings.position_embeddings.weight
    assert [list(tensor.dims) for tensor in exported.graph.initializer].count([longest, table.shape[1]]) == 1
    after = trim_positions(exported, 3)
    cut = [numpy_helper.to_array(tensor) for tensor in after.graph.initializer if tensor.dims[:1] == [3]]
    assert any(rows.shape == (3, table.shape[1]) and (rows == table[:3].detach().numpy()).all() for rows in cut)
    assert trim_positions(exported, longest) is exported


@pytest.mark.parametrize("family", ["gpt2", "vit"])
def test_all_of_them_together_on_other_families(family: str, tmp_path: Path) -> None:
    if family == "vit":
        classifier = image_models.transformer(image_models.tiny_folder(tmp_path, family))
        images = RANDOM.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    else:
        classifier = text_classifier(f"hf:{text_models.tiny_folder(tmp_path, family)}")
    before = onnx.load_from_string(export_onnx(classifier))
    after, fitted = before, []
    for rewrite in REWRITES:
        changed = try_on(rewrite, after)
        if changed is not None:
            after, fitted = changed, [*fitted, rewrite.name]
    assert "residual-sum" in fitted
    if family == "vit":
        runs = [
            open_session(m.SerializeToString(), 1, "test").run([OUTPUT], {"images": images})[0] for m in (before, after)
        ]
        assert runs[1] == pytest.approx(runs[0], abs=1e-5)
    else:
        the_same(before, after, classifier)


def convolution(shared: bool) -> onnx.ModelProto:
    """Conv, batch norm and a sum over the image; with `shared`, something else reads the convolution too."""
    weights = {
        "w": RANDOM.normal(size=(4, 3, 3, 3)),
        **{name: RANDOM.normal(size=4) for name in ("scale", "shift", "mean")},
        "variance": RANDOM.uniform(0.5, 2, 4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["b"]),
        helper.make_node("Add", ["b", "c"] if shared else ["b", "b"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], [OUTPUT]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", 4, 1, 1])],
        [numpy_helper.from_array(content.astype(np.float32), name) for name, content in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_batch_norm_goes_into_the_convolution_that_it_alone_reads() -> None:
    before = convolution(shared=False)
    after = fold_batch_norms(before)
    assert count(after) == {"Conv": 1, "Add": 1, "GlobalAveragePool": 1}
    x = RANDOM.normal(size=(2, 3, 8, 8)).astype(np.float32)
    said = [open_session(model.SerializeToString(), 1, "test").run([OUTPUT], {"x": x})[0] for model in (before, after)]
    assert said[1] == pytest.approx(said[0], abs=1e-5)


def test_batch_norm_stays_where_the_convolution_is_read_besides() -> None:
    assert count(fold_batch_norms(convolution(shared=True)))["BatchNormalization"] == 1


def test_graphs_that_do_not_fit_are_left_alone(exported: onnx.ModelProto) -> None:
    fitting = {rewrite.name for rewrite in REWRITES if try_on(rewrite, convolution(shared=True)) is not None}
    assert fitting == set()
    fitting = {rewrite.name for rewrite in REWRITES if try_on(rewrite, exported) is not None}
    assert fitting == {rewrite.name for rewrite in REWRITES} - {"batch-norm"}


@pytest.mark.parametrize(
    "name", ["lone-query", "residual-sum", "tokens-first", "one-product", "short-mask", "positions"]
)
def test_what_was_rewritten_is_not_rewritten_again(name: str, exported: onnx.ModelProto) -> None:
    rewrite = next(one for one in REWRITES if one.name == name)
    after = try_on(rewrite, exported)
    assert after is not None
    assert try_on(rewrite, after) is None


def test_tokens_first_hides_the_lone_query_so_that_int8_starts_anew(
    exported: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens_first = put_tokens_first(exported)
    assert count(ask_for_one(exported))["Squeeze"] == 1
    assert count(ask_for_one(tokens_first))["Squeeze"] == 0
    assert not building.hides_rewrites(tokens_first.SerializeToString())  # too small for any rewrite
    monkeypatch.setattr(building, "_SMALLEST", 0)
    assert building.hides_rewrites(tokens_first.SerializeToString())
    assert not building.hides_rewrites(convolution(shared=False).SerializeToString())
