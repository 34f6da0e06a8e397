from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from helpers import LABELS, colored, texts, tiny_onnx, tiny_package, tiny_text_package, tiny_tokenizer

from serve.errors import InputError, PackageError
from serve.manifest import ServingConfig, TextPreprocessing
from serve.package import load_package, write_package, write_serving
from serve.predictor import Predictor
from serve.runner import scores, softmax

COLORS = [colored(255, 0, 0), colored(0, 255, 0), colored(0, 0, 255), colored(0, 0, 0)]
MIXED = [colored(*rgb) for rgb in np.random.default_rng(0).integers(0, 256, (20, 3)).tolist()]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(tiny_package(tmp_path_factory.mktemp("predictor") / "package"))


def test_scores_are_probabilities_in_the_order_of_the_items(predictor: Predictor) -> None:
    got = scores(predictor, COLORS)
    assert got.dtype == np.float32
    assert np.allclose(got.sum(axis=1), 1, atol=1e-6)
    assert [LABELS[k] for k in got.argmax(axis=1)] == ["red", "green", "blue", "dark"]
    assert np.array_equal(scores(predictor, COLORS[::-1]), got[::-1])


def test_scores_are_those_of_the_model_worked_out_by_hand(predictor: Predictor) -> None:
    red, green, blue = 200, 100, 50
    logits = np.array([1.0, 2 / 3 + 8 * red / 255, 1 / 3 + 8 * green / 255, 8 * blue / 255])
    expected = np.exp(logits) / np.exp(logits).sum()
    assert np.allclose(scores(predictor, [colored(red, green, blue)])[0], expected, atol=1e-6)


def test_the_temperature_divides_the_logits(tmp_path: Path, predictor: Predictor) -> None:
    cooler = Predictor(tiny_package(tmp_path / "package", temperature=4.0))
    inputs = predictor.prepare(MIXED)
    assert np.allclose(cooler.compute(inputs), softmax(predictor.logits(inputs) / 4, 1.0), atol=1e-6)
    assert cooler.compute(inputs).max() < predictor.compute(inputs).max()


def test_softmax_survives_extreme_logits() -> None:
    got = softmax(np.array([[1e30, 0.0], [-1e30, -1e30]], np.float32), 1.0)
    assert np.array_equal(got, np.array([[1, 0], [0.5, 0.5]], np.float32))


@pytest.mark.parametrize(("batch_invariant", "runs"), [(True, [20]), (False, [1] * 20)])
def test_what_depends_on_the_batch_is_not_batched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_invariant: bool, runs: list[int]
) -> None:
    predictor = Predictor(tiny_package(tmp_path / "package", batch_invariant=batch_invariant))
    session, sizes = predictor._session, []

    class Spy:
        def run(self, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            sizes.append(len(feeds["images"]))
            return session.run(outputs, feeds)

    monkeypatch.setattr(predictor, "_session", Spy())
    got = scores(predictor, MIXED)
    assert sizes == runs
    assert np.allclose(got, np.concatenate([scores(predictor, [item]) for item in MIXED]), atol=1e-6)


def test_several_threads_get_what_one_gets(predictor: Predictor) -> None:
    alone = [scores(predictor, [item]) for item in MIXED]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda item: scores(predictor, [item]), MIXED * 10))
    assert all(np.array_equal(one, alone[i % len(MIXED)]) for i, one in enumerate(together))


def test_an_unreadable_item_is_the_senders_error(predictor: Predictor) -> None:
    with pytest.raises(InputError) as caught:
        predictor.prepare([COLORS[0], b"nonsense"])
    assert caught.value.code == "not_an_image"


def test_a_graph_for_other_labels_is_refused(tmp_path: Path) -> None:
    manifest = tiny_package(tmp_path / "package").manifest
    files = {"model.onnx": tiny_onnx(classes=5)}
    package = write_package(tmp_path / "five", manifest, files, {}, ServingConfig())
    with pytest.raises(PackageError, match="5 scores for 4 labels"):
        Predictor(package)


def test_a_graph_for_other_inputs_is_refused(tmp_path: Path) -> None:
    manifest = tiny_package(tmp_path / "package").manifest
    package = write_package(tmp_path / "grey", manifest, {"model.onnx": tiny_onnx(channels=1)}, {}, ServingConfig())
    with pytest.raises(PackageError, match="does not run"):
        Predictor(package)


def test_texts_are_scored_alike_alone_and_together(tmp_path: Path) -> None:
    items = texts(20)
    for batch_invariant in (True, False):
        predictor = Predictor(tiny_text_package(tmp_path / "text", batch_invariant=batch_invariant))
        together = scores(predictor, items)
        assert len(set(together.argmax(axis=1))) > 1
        assert np.allclose(together, np.concatenate([scores(predictor, [item]) for item in items]), atol=1e-6)


def _text_refusal(path: Path, tokenizer: bytes | None = None, **changes: Any) -> PackageError:
    with pytest.raises(PackageError) as caught:
        Predictor(tiny_text_package(path, tokenizer, **changes))
    assert str(path) in caught.value.message
    assert caught.value.hint
    return caught.value


def test_a_tokenizer_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    for content in (b"not json", b"{}", tiny_tokenizer()[:-20]):
        assert "tokenizer.json cannot be read" in _text_refusal(tmp_path / "package", content).message


def test_another_models_padding_is_refused(tmp_path: Path) -> None:
    other = TextPreprocessing(max_length=16, pad_id=5)  # a word's, which the graph reads as that word
    assert "does not ignore padding" in _text_refusal(tmp_path / "package", preprocessing=other).message
    outside = TextPreprocessing(max_length=16, pad_id=10_000)
    assert "pad_id is 10000" in _text_refusal(tmp_path / "package", preprocessing=outside).message
    Predictor(tiny_text_package(tmp_path / "alone", preprocessing=other, batch_invariant=False))  # is never padded


def test_a_text_package_without_its_tokenizer_is_refused(tmp_path: Path) -> None:
    package = tiny_text_package(tmp_path / "package")
    files = {"model.onnx": package.files["model.onnx"]}
    without = write_package(tmp_path / "without", package.manifest, files, {}, ServingConfig())
    with pytest.raises(PackageError, match=r"there is no tokenizer\.json") as caught:
        Predictor(without)
    assert caught.value.hint


def test_a_graph_that_is_none_is_refused(tmp_path: Path) -> None:
    manifest = tiny_package(tmp_path / "package").manifest
    write_package(tmp_path / "none", manifest, {"model.onnx": b"not a graph"}, {}, ServingConfig())
    with pytest.raises(PackageError, match="cannot load") as caught:
        Predictor.load(tmp_path / "none")
    assert caught.value.hint


def test_the_graph_that_runs_is_the_one_that_was_hashed(tmp_path: Path) -> None:
    package = tiny_package(tmp_path / "package")
    loaded = load_package(package.path)
    (package.path / "model.onnx").write_bytes(b"swapped after the check")
    assert scores(Predictor(loaded), COLORS).argmax(axis=1).tolist() == [1, 2, 3, 0]


def test_a_package_runs_at_the_graph_level_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = ort.InferenceSession

    def session(model: bytes, options: ort.SessionOptions, providers: list[str]) -> ort.InferenceSession:
        asked.append(options.graph_optimization_level)
        return real(model, options, providers=providers)

    monkeypatch.setattr(ort, "InferenceSession", session)
    tiny_package(tmp_path / "package")
    write_serving(tmp_path / "package", ServingConfig(threads=2, graph_level="basic"))
    named = Predictor.load(tmp_path / "package")
    other = Predictor.load(tmp_path / "package", graph_level="off")
    levels = ort.GraphOptimizationLevel
    assert asked == [levels.ORT_ENABLE_BASIC, levels.ORT_DISABLE_ALL]
    item = named.preparer.sample()
    assert np.allclose(scores(named, [item]), scores(other, [item]), atol=1e-6)
