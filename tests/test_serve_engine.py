from __future__ import annotations

import asyncio
import base64
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import LABELS, TEXT_LABELS, colored, encoded, texts, tiny_package, tiny_text_package
from PIL import Image

from serve.bodies import Query
from serve.engine import Engine, pool_size
from serve.errors import InputError, RequestError, UserError
from serve.limits import Limits
from serve.manifest import ServingConfig
from serve.package import load_package
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
    named = engine._namer.name(np.full((1, 4), 0.25, np.float32), 4)[0]["top_k"]
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
    ask, prepare = engine._ask, engine._predictor.preparer.prepare_one

    def watched(*args: Any) -> Any:
        try:
            return ask(*args)
        finally:
            ended.set()

    def slow(item: bytes) -> tuple[np.ndarray, bool]:
        prepared.append(item)
        first.set()
        assert release.wait(10)
        return prepare(item)

    monkeypatch.setattr(engine, "_ask", watched)
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


@pytest.fixture
def batching(package: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("serve.engine.pool_size", lambda serving: 1)
    loaded = load_package(package)
    engine = Engine(Predictor(replace(loaded, serving=ServingConfig(max_batch=4))), Limits(max_queue=30))
    yield engine
    engine.close()


async def _all(engine: Engine, bodies: list[bytes]) -> list[Any]:
    headers = {b"content-type": b"application/json"}
    return await asyncio.gather(*(engine.respond(headers, b"", body) for body in bodies), return_exceptions=True)


def _json(*items: bytes) -> bytes:
    return json.dumps({"inputs": [base64.b64encode(item).decode() for item in items], "top_k": 4}).encode()


def test_batched_requests_are_answered_as_they_are_alone(
    engine: Engine, batching: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, compute = [], batching._predictor.compute

    def watched(inputs: np.ndarray) -> np.ndarray:
        sizes.append(len(inputs))
        return compute(inputs)

    monkeypatch.setattr(batching._batcher, "_compute", watched)
    monkeypatch.setattr(batching._batcher, "_max_queue", 1000)
    rng = np.random.default_rng(0)
    colours = [colored(*rgb) for rgb in rng.integers(0, 256, (40, 3)).tolist()]
    bodies = [_json(*colours[at : at + 1 + at % 3]) for at in range(30)] + [_json(RED, b"nonsense", BLUE)]
    got, expected = asyncio.run(_all(batching, bodies)), asyncio.run(_all(engine, bodies))
    for answer, other in zip(got, expected, strict=True):
        assert _labels({"predictions": answer.predictions}) == _labels({"predictions": other.predictions})
        assert [score for _, score in answer.best] == pytest.approx([score for _, score in other.best], abs=1e-6)
    assert max(sizes) > 1
    assert batching._batcher is not None
    assert batching._batcher.waiting == 0
    assert sorted(got[0].stopwatch.laps) == ["compute", "preprocess", "queue"]


def _with_poison(compute: Any) -> Any:
    """A model that fails on anything red."""

    def poisoned(inputs: np.ndarray) -> np.ndarray:
        if (inputs[..., 0] == 255).any():
            raise RuntimeError("the model failed")
        return compute(inputs)

    return poisoned


@pytest.mark.parametrize("batched", [False, True])
def test_an_input_that_the_model_fails_on_fails_alone(
    engine: Engine, batching: Engine, monkeypatch: pytest.MonkeyPatch, batched: bool
) -> None:
    tried = batching if batched else engine
    owner, name = (tried._batcher, "_compute") if batched else (tried._predictor, "compute")
    monkeypatch.setattr(owner, name, _with_poison(engine._predictor.compute))
    alone, mixed, good = asyncio.run(_all(tried, [_json(RED), _json(GREEN, RED, BLUE), _json(GREEN)]))
    assert isinstance(alone, RuntimeError)
    assert _labels({"predictions": mixed.predictions}) == ["green", "internal", "blue"]
    assert _labels({"predictions": good.predictions}) == ["green"]


def test_what_is_abandoned_leaves_the_queue_and_what_is_too_much_is_refused(batching: Engine) -> None:
    running, release, compute = threading.Event(), threading.Event(), batching._predictor.compute

    def slow(inputs: np.ndarray) -> np.ndarray:
        running.set()
        assert release.wait(10)
        return compute(inputs)

    batcher: Any = batching._batcher
    batcher._compute = slow

    async def until(waiting: int) -> None:
        while batcher.waiting != waiting:
            await asyncio.sleep(0.001)

    async def scenario() -> None:
        headers = {b"content-type": b"application/json"}
        ask = lambda *items: asyncio.create_task(batching.respond(headers, b"", _json(*items)))
        busy = ask(RED)
        while not running.is_set():
            await asyncio.sleep(0.001)
        await until(0)
        waiting = ask(*[GREEN] * 20)
        await until(20)
        with pytest.raises(RequestError) as caught:
            await ask(*[BLUE] * 20)
        assert caught.value.status == 429
        waiting.cancel()
        await until(0)
        fits = ask(*[BLUE] * 20)
        await until(20)
        release.set()
        assert _labels({"predictions": (await fits).predictions}) == ["blue"] * 20
        await busy

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_package_that_must_not_be_batched_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    moving = tiny_package(tmp_path / "package", batch_invariant=False)
    with pytest.raises(UserError, match="max_batch = 2"):
        Engine(Predictor(replace(moving, serving=ServingConfig(max_batch=2))), Limits())


def test_the_queue_is_a_limit_only_where_there_is_one(engine: Engine, batching: Engine) -> None:
    assert batching.describe()["limits"]["max_queue"] == 30
    assert "max_queue" not in engine.describe()["limits"]


def test_the_pool_fills_the_cores_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert pool_size(ServingConfig()) == 8
    assert pool_size(ServingConfig(threads=2, workers=2)) == 2
    assert pool_size(ServingConfig(threads=16)) == 1
    monkeypatch.setenv("LIMBECK_WORKERS", "4")
    assert pool_size(ServingConfig(threads=2)) == 1
