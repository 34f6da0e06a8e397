"""A user's own ONNX file: adapted so that it answers as it did, or refused for a reason that can be mended."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tomli_w
import torch
from helpers import LABELS, TEXT_LABELS, VOCABULARY, encoded, texts, tiny_onnx, tiny_text_onnx, tiny_tokenizer
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from PIL import Image

from compress.onnx_model import import_onnx, package_onnx
from serve.errors import UserError
from serve.predictor import Predictor
from serve.runner import scores, softmax

IMAGES = {"kind": "image", "color": "RGB", "size": [8, 8]}
PIXELS = {"layout": "NCHW", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
DESCRIBED: dict[str, Any] = {"labels": list(LABELS), "preprocessing": IMAGES, "pixels": PIXELS}
TEXTS: dict[str, Any] = {
    "labels": list(TEXT_LABELS),
    "preprocessing": {"kind": "text", "max_length": 16, "pad_id": 0},
}


WEIGHTS = {
    "kernel": np.random.default_rng(0).normal(size=(6, 3, 3, 3)).astype(np.float32),
    "head": np.random.default_rng(1).normal(scale=0.2, size=(6 * 36, 4)).astype(np.float32),
}


def network(batch: int | str = "n", probabilities: bool = False, peeks: bool = False) -> onnx.ModelProto:
    """Floats [N, 3, 8, 8] to [N, 4], as the dynamo exporter writes it; a `batch` that is fixed stands in the Reshape.

    With `peeks` the scores of an item depend on all that come with it.
    """
    shape = np.array([batch if isinstance(batch, int) else -1, 6 * 36], np.int64)
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["maps"]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("Reshape", ["active", "shape"], ["flat"], allowzero=1),
        helper.make_node("MatMul", ["flat", "head"], ["scores"]),
        helper.make_node("ReduceMean", ["scores", "axis"], ["mean"], keepdims=1),
        helper.make_node("Add" if peeks else "Identity", ["scores", "mean"] if peeks else ["scores"], ["sum"]),
        helper.make_node("Softmax" if probabilities else "Identity", ["sum"], ["y"]),
    ]
    constants = {**WEIGHTS, "shape": shape, "axis": np.array([0])}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def write(folder: Path, model: bytes | onnx.ModelProto, described: dict[str, Any] | None = None) -> Path:
    """A model in a file, its description beside it."""
    file = folder / "model.onnx"
    file.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    if described is not None:
        file.with_suffix(".toml").write_text(tomli_w.dumps(described))
    return file


def pictures(count: int = 6) -> list[bytes]:
    random = np.random.default_rng(3)
    return [encoded(Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))) for _ in range(count)]


def as_its_user(items: list[bytes]) -> np.ndarray:
    """Probabilities [N, K] as the user of `network` computes them, in torch."""
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(item))) for item in items]) / 255
    pixels = (pixels - np.array(PIXELS["mean"])) / np.array(PIXELS["std"])
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float()
    maps = torch.relu(torch.nn.functional.conv2d(images, torch.from_numpy(WEIGHTS["kernel"])))
    return softmax((maps.flatten(1) @ torch.from_numpy(WEIGHTS["head"])).numpy(), 1.0)


def edited(change: Callable[[onnx.ModelProto], None], model: bytes | None = None) -> onnx.ModelProto:
    """The tiny model of images, changed."""
    proto = onnx.load_model_from_string(model or tiny_onnx())
    change(proto)
    return proto


def refusal(file: Path, **arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        import_onnx(file, **arguments)
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("batch", ["n", 1])
def test_a_network_answers_as_it_did(tmp_path: Path, batch: int | str) -> None:
    """Also one whose batch was fixed at 1, and stands in a Reshape."""
    items = pictures()
    found = import_onnx(write(tmp_path, network(batch), DESCRIBED))
    runner = package_onnx(found, tmp_path / "package", items, {"name": "mine"})
    assert scores(runner, items) == pytest.approx(as_its_user(items), abs=1e-5)
    assert scores(Predictor.load(tmp_path / "package"), items[:1]) == pytest.approx(scores(runner, items)[:1], abs=1e-6)
    assert runner.package.manifest.batch_invariant
    assert len(set(scores(runner, items).argmax(axis=1))) > 1


def test_probabilities_are_served_as_they_are(tmp_path: Path) -> None:
    items, file = pictures(), write(tmp_path, network(probabilities=True), DESCRIBED | {"scores": "probabilities"})
    runner = package_onnx(import_onnx(file), tmp_path / "package", items, {})
    assert scores(runner, items) == pytest.approx(as_its_user(items), abs=1e-5)
    assert "described as giving logits" in refusal(write(tmp_path, network(probabilities=True), DESCRIBED))
    described = DESCRIBED | {"scores": "probabilities"}
    assert "described as giving probabilities" in refusal(write(tmp_path, network(), described))


def test_scores_come_in_the_order_of_the_datas_labels(tmp_path: Path) -> None:
    items, file = pictures(), write(tmp_path, network(), DESCRIBED)
    ours = tuple(sorted(LABELS))
    runner = package_onnx(import_onnx(file, labels=ours), tmp_path / "package", items, {})
    assert runner.labels == ours != LABELS
    expected = as_its_user(items)[:, [LABELS.index(label) for label in ours]]
    assert scores(runner, items) == pytest.approx(expected, abs=1e-5)


def test_a_graph_that_takes_bytes_needs_no_pixels(tmp_path: Path) -> None:
    described = {key: value for key, value in DESCRIBED.items() if key != "pixels"}
    file = write(tmp_path, tiny_onnx(), described)
    assert import_onnx(file).precision == "fp32"
    write(tmp_path, tiny_onnx(), DESCRIBED)
    assert "takes uint8 pixels" in refusal(file)


def masked_text_onnx(mask: bool = True, types: bool = True, length: int | str = "L") -> onnx.ModelProto:
    """The mean of the tokens' vectors under an attention mask, as models of the transformers library take one."""

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        kept = [node for node in graph.node if node.op_type not in ("Equal", "Not")]
        del graph.node[:]
        graph.node.extend(kept)
        cast = next(node for node in graph.node if node.op_type == "Cast")
        cast.input[0] = "attention_mask"
        graph.input.append(helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["N", length]))
        if types:
            ids = next(node for node in graph.node if node.op_type == "Gather")
            graph.node.insert(0, helper.make_node("Add", ["input_ids", "token_type_ids"], ["shifted"]))
            ids.input[1] = "shifted"
            graph.input.append(helper.make_tensor_value_info("token_type_ids", TensorProto.INT64, ["N", length]))

    return edited(change, tiny_text_onnx())


def test_a_text_model_with_mask_and_types_is_the_one_without(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(tiny_tokenizer())
    items = texts(20)
    answers = []
    for name, model in (("plain", tiny_text_onnx()), ("masked", masked_text_onnx().SerializeToString())):
        found = import_onnx(write(tmp_path, model, TEXTS))
        answers.append(scores(package_onnx(found, tmp_path / name, items, {}), items))
    assert answers[1] == pytest.approx(answers[0], abs=1e-6)
    assert len(set(answers[0].argmax(axis=1))) > 1


def test_a_texts_length_must_be_free_and_its_vocabulary_known(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(tiny_tokenizer())
    assert "any number of tokens" in refusal(write(tmp_path, masked_text_onnx(length=16), TEXTS))
    larger = json.loads(tiny_tokenizer())
    larger["model"]["vocab"]["further"] = len(VOCABULARY)
    (tmp_path / "tokenizer.json").write_text(json.dumps(larger))
    assert f"does not run on token {len(VOCABULARY)}" in refusal(write(tmp_path, tiny_text_onnx(), TEXTS))
    (tmp_path / "tokenizer.json").unlink()
    assert "tokenizer.json cannot be read" in refusal(write(tmp_path, tiny_text_onnx(), TEXTS))


def test_nothing_is_guessed(tmp_path: Path) -> None:
    file = write(tmp_path, network())
    assert "without a description" in refusal(file)
    for missing in ("labels", "preprocessing"):
        write(tmp_path, file.read_bytes(), {key: value for key, value in DESCRIBED.items() if key != missing})
        assert f"'{missing}' is missing, and cannot be guessed" in refusal(file)
    write(tmp_path, file.read_bytes(), {"labels": list(LABELS), "preprocessing": IMAGES})
    assert "nothing says how pixels become that" in refusal(file)
    write(tmp_path, file.read_bytes(), DESCRIBED | {"pixles": {}})
    assert "unknown key 'pixles'" in refusal(file)


def test_wrong_label_counts_and_shapes_are_told(tmp_path: Path) -> None:
    file = write(tmp_path, network(), DESCRIBED | {"labels": ["cat", "dog"]})
    assert "gives 4 scores for 2 labels" in refusal(file)
    write(tmp_path, file.read_bytes(), DESCRIBED)
    assert "4 labels and the data have 3: the model has 'dark'" in refusal(file, labels=LABELS[1:])
    write(tmp_path, file.read_bytes(), DESCRIBED | {"preprocessing": IMAGES | {"size": [9, 9]}})
    assert "[N, 3, 9, 9] (NCHW)" in refusal(file)
    write(tmp_path, file.read_bytes(), DESCRIBED | {"pixels": PIXELS | {"layout": "NHWC"}})
    assert "(NHWC)" in refusal(file)


def test_a_fixed_batch_is_refused_where_it_cannot_be_freed(tmp_path: Path) -> None:
    file = write(tmp_path, network(4), DESCRIBED)
    assert "takes exactly 4 items at once" in refusal(file)
    assert "items in a batch other scores" in refusal(write(tmp_path, network(1, peeks=True), DESCRIBED))


def test_unknown_and_custom_operators_are_named(tmp_path: Path) -> None:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.node[-1].op_type = "Gem"

    def custom(model: onnx.ModelProto) -> None:
        model.graph.node[-1].domain = "acme.ops"
        model.opset_import.append(helper.make_opsetid("acme.ops", 1))

    def inside(model: onnx.ModelProto) -> None:
        """Hidden in a branch."""
        node = helper.make_node("Evil", [], ["o"], domain="acme.ops")
        out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1])
        branch = helper.make_graph([node], "branch", [], [out])
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        model.graph.node.append(helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch))

    described = {key: value for key, value in DESCRIBED.items() if key != "pixels"}
    assert "does not know at opset 18: Gem" in refusal(write(tmp_path, edited(rename), described))
    for change in (custom, inside):
        assert "not ONNX Runtime's own: acme.ops." in refusal(write(tmp_path, edited(change), described))
    newer = edited(lambda model: setattr(model.opset_import[0], "version", 99))
    assert "opset 99" in refusal(write(tmp_path, newer, described))


def test_old_opsets_are_converted(tmp_path: Path) -> None:
    """Opset 11 cannot be quantized for each channel."""
    weight, bias = np.random.default_rng(0).normal(size=(192, 4)).astype(np.float32), np.zeros(4, np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["y"])],
        "old",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    found = onnx.load_model_from_string(import_onnx(write(tmp_path, model, DESCRIBED)).model)
    assert found.opset_import[0].version >= 13


def with_weights_in(location: str) -> onnx.ModelProto:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "weight")
        external_data_helper.set_external_data(tensor, location)
        tensor.ClearField("raw_data")

    return edited(change)


def test_weights_are_read_beside_the_model_and_nowhere_else(tmp_path: Path) -> None:
    described = {key: value for key, value in DESCRIBED.items() if key != "pixels"}
    folder = tmp_path / "folder"
    folder.mkdir()
    tensor = next(t for t in onnx.load_model_from_string(tiny_onnx()).graph.initializer if t.name == "weight")
    content = numpy_helper.to_array(tensor).tobytes()
    (tmp_path / "secret.data").write_bytes(content)
    (folder / "weights.data").write_bytes(content)
    (folder / "link.data").symlink_to(tmp_path / "secret.data")
    whole = import_onnx(write(folder, tiny_onnx(), described))
    beside = import_onnx(write(folder, with_weights_in("weights.data"), described))
    for model in (whole.model, beside.model):
        found = next(t for t in onnx.load_model_from_string(model).graph.initializer if t.name.endswith("weight"))
        assert numpy_helper.to_array(found).tobytes() == content
    for place in ("../secret.data", str(tmp_path / "secret.data"), "link.data"):
        assert "outside of its folder" in refusal(write(folder, with_weights_in(place), described))
    assert "which is missing" in refusal(write(folder, with_weights_in("gone.data"), described))


def test_what_is_no_onnx_file_is_told_apart(tmp_path: Path) -> None:
    file = write(tmp_path, b"", DESCRIBED)
    torch.save({"weights": torch.zeros(2)}, file)
    assert "a pickle" in refusal(file)
    file.write_bytes(b"<html>not found</html>")
    assert "is no ONNX" in refusal(file)
    file.write_bytes(b"")
    assert "is no ONNX" in refusal(file)
    file.unlink()
    assert "cannot read the model" in refusal(file)
    with file.open("wb") as sparse:
        sparse.truncate(2**31)
    assert "at most 2 GB" in refusal(file)


def test_several_outputs_need_one_that_scores(tmp_path: Path) -> None:
    described = {key: value for key, value in DESCRIBED.items() if key != "pixels"}

    def two(model: onnx.ModelProto, names: tuple[str, str]) -> None:
        model.graph.node[-1].output[0] = names[0]
        model.graph.output[0].name = names[0]
        model.graph.node.append(helper.make_node("Identity", ["mean"], [names[1]]))
        model.graph.output.append(helper.make_tensor_value_info(names[1], TensorProto.FLOAT, ["N", 3]))

    assert import_onnx(write(tmp_path, edited(lambda m: two(m, ("logits", "features"))), described)).labels == LABELS
    assert "expected one output" in refusal(write(tmp_path, edited(lambda m: two(m, ("a", "b"))), described))
