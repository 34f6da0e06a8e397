"""`limbeck optimize --model model.onnx`: a user's own graph, its precisions and runtime settings, no students."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import tomli_w
from helpers import image_inputs
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from tiny_run import Recorder, made_up_memory, run_content

from compress.graph import build as building
from compress.graph.timing import Timed
from compress.optimize.command import Asked, Outcome, optimize
from compress.recipe_file import load_recipe
from compress.stages import measuring
from serve.errors import UserError
from serve.locate import find_package

DESCRIBED = {
    "labels": [str(digit) for digit in range(10)],
    "preprocessing": {"kind": "image", "color": "L", "size": [8, 8]},
    "pixels": {"layout": "NCHW", "mean": [0.0], "std": [1.0]},
}


def network() -> onnx.ModelProto:
    """Floats [N, 1, 8, 8] in 0..1 to logits [N, 10]: a linear classifier of digits, as another tool would write it."""
    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8).reshape(len(digits.target), -1) / 255
    fitted = LogisticRegression(max_iter=200, C=2.0).fit(images, digits.target)
    constants = {
        "shape": np.array([-1, 64], np.int64),
        "weight": fitted.coef_.T.astype(np.float32),
        "bias": fitted.intercept_.astype(np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["product"], name="product"),
        helper.make_node("Add", ["product", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(autouse=True, scope="module")
def _memory() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "measure_memory", made_up_memory)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "model.onnx"
    file.write_bytes(network().SerializeToString())
    file.with_suffix(".toml").write_text(tomli_w.dumps(DESCRIBED))
    return file


@pytest.fixture(scope="module")
def found(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    changes = ("optimize.latency_samples=20", "evaluate.latency_samples=20", "evaluate.batch_sizes=[1]")
    out = tmp_path_factory.mktemp("search") / "mine"
    limits = {"max_drop_points": 5.0, "prefer": "size"}
    return optimize(Asked(model=str(model), data="digits", out=out, changes=changes, accept=limits), Recorder())


def test_its_precisions_are_searched_and_the_smallest_is_served(found: Outcome) -> None:
    trials = {trial.id: trial for trial in found.record.trials}
    precisions = ("fp32", "int8-static", "int8-dynamic", "int8-weights", "int4-weights")  # small ones: size counts
    assert set(trials) == {f"teacher-{precision}" for precision in precisions}
    feasible = [trial for trial in trials.values() if trial.feasible]
    assert len(feasible) >= 4
    smallest = min(feasible, key=lambda trial: trial.size_bytes or 0)
    assert found.record.choice == found.record.selected == smallest.id
    assert find_package(found.folder).name == smallest.id
    assert found.record.ended == "nothing is left that could be better"


def test_the_given_graph_is_what_all_is_compared_with(found: Outcome) -> None:
    report = found.report
    assert report.baseline == "teacher-fp32"
    base = report.variant("teacher-fp32")
    assert (base.runtime, base.parents, base.flips.lost, base.speedup) == ("onnxruntime", [], 0, 1.0)
    assert base.accuracy > 0.9
    assert base.params == 64 * 10 + 10
    assert base.parity is not None
    assert base.parity.against.endswith("model.onnx")
    assert (found.folder / "report.html").read_text().count("teacher-fp32") > 1


def test_the_same_command_finds_all_as_it_was(found: Outcome, model: Path) -> None:
    console = Recorder()
    changes = ("optimize.latency_samples=20", "evaluate.latency_samples=20", "evaluate.batch_sizes=[1]")
    limits = {"max_drop_points": 5.0, "prefer": "size"}
    asked = Asked(model=str(model), data="digits", out=found.folder, changes=changes, accept=limits)
    assert optimize(asked, console).record.selected == found.record.selected
    # The search asks the given graph at the default runtime setting and the verdict at the chosen one. Where the clocks
    # chose another, its answers on validation are made once more; nothing else ever is.
    assert console.redone <= {"validation/teacher-fp32"}


def test_it_can_neither_be_trained_nor_teach(found: Outcome, model: Path, tmp_path: Path) -> None:
    resolved = load_recipe(found.folder / "optimized.toml")
    assert resolved.teacher.model == f"onnx:{model}"
    with pytest.raises(UserError, match="is a graph for serving: it can be neither trained nor asked to teach"):
        run_content(resolved.model_dump(mode="json", exclude_none=True), tmp_path / "run", memory=False)
    student = 'students=[{name="small", model="builtin:cnn-4"}]'
    with pytest.raises(UserError, match="which can teach no students"):
        optimize(Asked(model=str(model), data="digits", out=tmp_path, changes=(student,)), Recorder())


def test_labels_in_another_order_are_told_before_the_search(model: Path, tmp_path: Path) -> None:
    permuted = tmp_path / "permuted.onnx"
    permuted.write_bytes(model.read_bytes())
    labels = {**DESCRIBED, "labels": [str(digit) for digit in range(9, -1, -1)]}
    permuted.with_suffix(".toml").write_text(tomli_w.dumps(labels))
    with pytest.raises(UserError, match="the label map is permuted: '0' is called '9'"):
        optimize(Asked(model=str(permuted), data="digits", out=tmp_path / "out"), Recorder())


def test_black_calibration_images_are_told_as_the_reason(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    black = image_inputs(np.zeros((20, 8, 8, 1), np.uint8))
    monkeypatch.setattr("compress.optimize.onnx.prepare_inputs", lambda *_: black)
    changes = ("optimize.latency_samples=20", "evaluate.latency_samples=20", "evaluate.batch_sizes=[1]")
    changes += ('optimize.precisions=["fp32", "int8-static"]', 'optimize.graph_levels=["all"]')
    limits = {"max_drop_points": 5.0}
    found = optimize(Asked(model=str(model), data="digits", out=tmp_path, changes=changes, accept=limits), Recorder())
    trial = next(trial for trial in found.record.trials if trial.precision == "int8-static")
    assert not trial.feasible
    assert trial.why.startswith("its answers agree with those of teacher-fp32 on only ")
    assert "the calibration items are not like these" in trial.why


def with_batch_norm() -> onnx.ModelProto:
    """The same behind a convolution and a batch norm that change nothing, as another tool may leave them."""
    model = network()
    constants = {
        "kernel": np.ones((1, 1, 1, 1), np.float32) / 2,
        "scale": np.array([2], np.float32),
        "shift": np.array([0], np.float32),
        "variance": np.array([1 - 1e-5], np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["halved"], name="conv"),
        helper.make_node("BatchNormalization", ["halved", "scale", "shift", "shift", "variance"], ["normal"]),
        *model.graph.node,
    ]
    nodes[2].input[0] = "normal"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


@pytest.mark.parametrize("rewrites", ["measured", "none"])
def test_its_other_precisions_are_rewritten_where_that_is_faster_and_it_stays_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rewrites: str
) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(with_batch_norm().SerializeToString())
    file.with_suffix(".toml").write_text(tomli_w.dumps(DESCRIBED))
    monkeypatch.setattr(building, "_SMALLEST", 0)
    monkeypatch.setattr(building, "time_in_turn", lambda *_: lambda before, after: Timed(2.0, 1.0, 9, faster=True))
    changes = ("optimize.latency_samples=20", "evaluate.latency_samples=20", "evaluate.batch_sizes=[1]")
    changes += ('optimize.precisions=["fp32", "int8-dynamic"]', 'optimize.graph_levels=["all"]')
    changes += (f'graph.rewrites="{rewrites}"',)
    asked = Asked(model=str(file), data="digits", out=tmp_path, changes=changes, accept={"max_drop_points": 5.0})
    search = optimize(asked, Recorder()).folder / "search"
    operators = {
        package.name: {node.op_type for node in onnx.load(package / "model.onnx").graph.node}
        for package in (search / "packages").iterdir()
    }
    assert "BatchNormalization" in operators["teacher-fp32"]
    assert ("BatchNormalization" in operators["teacher-int8-dynamic"]) is (rewrites == "none")
    made = json.loads((search / "run.json").read_text())["stages"]["packages/teacher-int8-dynamic"]["result"]
    assert [one["name"] for one in made["rewrites"] if one["kept"]] == ([] if rewrites == "none" else ["batch-norm"])
    assert bool(made["graph"].get("rewrites")) is (rewrites == "measured")
    assert made["parity"]["disagreements"] <= 3


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        optimize(Asked(model=str(tmp_path / "no.onnx"), data="digits"), Recorder())
