from __future__ import annotations

import asyncio
import base64
import gc
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import LABELS, TEXT_LABELS, colored, encoded, texts, tiny_package, tiny_text_package
from PIL import Image

from serve.bodies import Query
from serve.engine import Engine, pool_size
from serve.errors import InputError, RequestError
from serve.limits import Limits
from serve.manifest import ServingConfig
from serve.predictor import Predictor
from serve.runner import scores

RED, GREEN, BLUE = colored(255, 0, 0), colored(0, 255, 0), colored(0, 0, 255)
RAW = {b"content-type": b"image/png"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_package(tmp_path_factory.mktemp("engine") / "package").path


@pytest.fixture
def engine(package: Path) -> Any:
    engine = Engine(Predictor.load(package), Limits())
    yield engine
    engine.close()


def _labels(answer: dict[str, Any]) -> list[str]:
    return [prediction.get("label") or prediction["error"]["code"] for prediction in answer["predictions"]]


def test_an_answer_names_the_model_and_each_input_in_order(engine: Engine) -> None:
    answer = engine.answer(Query([GREEN, RED, BLUE, RED], None))
    assert answer["model"] == {"id": engine.describe()["id"], "name": "tiny"}
    assert _labels(answer) == ["green", "red", "blue", "red"]


def test_top_k_is_best_first_and_agrees_with_label_and_score(engine: Engine) -> None:
    prediction = engine.answer(Query([colored(200, 100, 50)], 4))["predictions"][0]
    assert [named["label"] for named in prediction["top_k"]] == ["red", "green", "blue", "dark"]
    assert (prediction["label"], prediction["score"]) == ("red", prediction["top_k"][0]["score"])
    assert sum(named["score"] for named in prediction["top_k"]) == pytest.approx(1, abs=1e-6)


def test_top_k_has_a_default_and_bounds(engine: Engine) -> None:
    assert engine.describe()["default_top_k"] == 3
    assert len(engine.answer(Query([RED], None))["predictions"][0]["top_k"]) == 3
    for top_k in (1, 4):
        assert len(engine.answer(Query([RED], top_k))["predictions"][0]["top_k"]) == top_k
    for top_k in (0, -1, 5, 10**100):
        with pytest.raises(RequestError) as caught:
            engine.answer(Query([RED], top_k))
        assert (caught.value.status, caught.value.code) == (422, "bad_top_k")


def test_scores_survive_json_to_the_last_bit(engine: Engine) -> None:
    item = colored(201, 99, 51)
    expected = scores(engine._predictor, [item])[0]
    text = asyncio.run(engine.respond(RAW, b"top_k=4", item)).body
    named = json.loads(text)["predictions"][0]["top_k"]
    got = {entry["label"]: np.float32(entry["score"]) for entry in named}
    assert [got[label] for label in LABELS] == expected.tolist()


def test_of_equal_scores_the_first_class_is_named_first(engine: Engine) -> None:
    named = engine._name(np.full((1, 4), 0.25, np.float32), 4)[0]["top_k"]
    assert [entry["label"] for entry in named] == list(LABELS)


def test_bad_inputs_take_their_place_among_the_good(engine: Engine) -> None:
    bad = InputError("bad_base64", "the input is not base64", "a hint")
    answer = engine.answer(Query([b"nonsense", RED, bad, RED[:50], BLUE, b""], None))
    assert _labels(answer) == ["not_an_image", "red", "bad_base64", "broken_image", "blue", "empty_input"]
    assert answer["predictions"][2] == {
        "error": {"code": "bad_base64", "message": "the input is not base64", "hint": "a hint"}
    }
    assert answer["predictions"][1] == engine.answer(Query([RED], None))["predictions"][0]


@pytest.mark.parametrize(
    ("items", "status", "code"),
    [
        ([b"nonsense"], 422, "not_an_image"),
        ([b"", b"nonsense"], 422, "empty_input"),
        ([encoded(Image.new("1", (6000, 6000)))], 413, "too_many_pixels"),
    ],
)
def test_if_no_input_can_be_read_the_request_fails_like_its_first(
    engine: Engine, items: list[bytes | InputError], status: int, code: str
) -> None:
    with pytest.raises(RequestError) as caught:
        engine.answer(Query(items, None))
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.hint


def test_scores_that_are_no_numbers_are_never_sent(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine._predictor, "compute", lambda inputs: np.full((len(inputs), 4), np.nan, np.float32))
    with pytest.raises(ValueError, match="not JSON compliant"):
        asyncio.run(engine.respond(RAW, b"", RED))


def test_the_event_loop_is_free_while_the_model_runs(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    running, release = threading.Event(), threading.Event()
    compute = engine._predictor.compute

    def slow(inputs: np.ndarray) -> np.ndarray:
        running.set()
        assert release.wait(10)
        return compute(inputs)

    monkeypatch.setattr(engine._predictor, "compute", slow)

    async def scenario() -> bytes:
        task = asyncio.create_task(engine.respond(RAW, b"", RED))
        while not running.is_set():
            await asyncio.sleep(0.001)
        assert not task.done()  # the model runs, and the loop is here
        release.set()
        return await task

    assert json.loads(asyncio.run(scenario()).body)["predictions"][0]["label"] == "red"


def test_work_that_nobody_waits_for_ends_at_the_next_input(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[bytes] = []
    first, release, ended = threading.Event(), threading.Event(), threading.Event()
    answer, prepare = engine.answer, engine._predictor.preparer.prepare_one

    def watched(*args: Any) -> dict[str, Any]:
        try:
            return answer(*args)
        finally:
            ended.set()

    def slow(item: bytes) -> tuple[np.ndarray, bool]:
        prepared.append(item)
        first.set()
        assert release.wait(10)
        return prepare(item)

    monkeypatch.setattr(engine, "answer", watched)
    monkeypatch.setattr(engine._predictor.preparer, "prepare_one", slow)
    body = json.dumps({"inputs": [base64.b64encode(RED).decode()] * 20}).encode()

    async def scenario() -> None:
        task = asyncio.create_task(engine.respond({b"content-type": b"application/json"}, b"", body))
        while not first.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()

    asyncio.run(scenario())
    assert ended.wait(10)
    assert len(prepared) == 1


def test_a_model_is_described_with_its_metrics_and_the_limits(engine: Engine) -> None:
    model = engine.describe()
    assert (model["task"], model["labels"], model["metrics"]) == ("image", list(LABELS), {"accuracy": 0.5})
    assert model["preprocessing"]["size"] == [8, 8]
    assert model["limits"]["max_items"] == Limits().max_items
    assert model["limits"]["max_top_k"] == 4
    assert sorted(model["send"]) == ["application/json", "image/*", "multipart/form-data"]
    assert "max_pixels" in model["limits"]
    assert "max_text_chars" not in model["limits"]
    json.dumps(model)


@pytest.fixture
def text_engine(tmp_path: Path) -> Any:
    engine = Engine(Predictor(tiny_text_package(tmp_path / "package")), Limits())
    yield engine
    engine.close()


def test_texts_are_answered_in_order_with_the_predictors_own_scores(text_engine: Engine) -> None:
    items = texts(30)
    answer = text_engine.answer(Query([*items], 3))
    for prediction, row in zip(answer["predictions"], scores(text_engine._predictor, items), strict=True):
        named = {entry["label"]: entry["score"] for entry in prediction["top_k"]}
        assert np.allclose([named[label] for label in TEXT_LABELS], row, atol=1e-6)
        assert "truncated" not in prediction


def test_texts_of_one_length_run_together_and_none_is_padded(
    text_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, compute = [], text_engine._predictor.compute

    def watched(inputs: np.ndarray) -> np.ndarray:
        shapes.append(inputs.shape)
        assert (inputs != 0).all()
        return compute(inputs)

    monkeypatch.setattr(text_engine._predictor, "compute", watched)
    text_engine.answer(Query([b"good", b"a very good film", b"bad", b"dull"], 1))
    assert shapes == [(3, 3), (1, 6)]


def test_a_text_that_was_cut_says_so(text_engine: Engine) -> None:
    long, bad = b"good " * 15, InputError("text_too_long", "the text is too long", "a hint")
    first, second, third, fourth = text_engine.answer(Query([b"good", long, bad, b"bad"], 1))["predictions"]
    assert second.pop("truncated") is True
    assert second == text_engine.answer(Query([b"good " * 14], 1))["predictions"][0]  # what 16 tokens hold
    assert third["error"]["code"] == "text_too_long"
    assert "truncated" not in first
    assert "truncated" not in fourth


def test_a_text_too_long_alone_is_413(text_engine: Engine) -> None:
    with pytest.raises(RequestError) as caught:
        text_engine.answer(Query([InputError("text_too_long", "the text is too long", "a hint")], 1))
    assert (caught.value.status, caught.value.code) == (413, "text_too_long")


def test_a_text_model_says_how_to_send(text_engine: Engine) -> None:
    model = text_engine.describe()
    assert (model["task"], model["labels"]) == ("text", list(TEXT_LABELS))
    assert list(model["send"]) == ["application/json"]
    assert model["preprocessing"]["max_length"] == 16
    assert model["limits"]["max_text_chars"] == 100_000
    assert "max_pixels" not in model["limits"]
    json.dumps(model)


def test_warming_up_leaves_nothing_for_the_first_collection(engine: Engine) -> None:
    gc.unfreeze()
    try:
        engine.warm_up()
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()


def test_the_pool_fills_the_cores_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert pool_size(ServingConfig()) == 8
    assert pool_size(ServingConfig(threads=2, workers=2)) == 2
    assert pool_size(ServingConfig(threads=16)) == 1
