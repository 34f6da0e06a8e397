from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import colored, tiny_package

from compress.evidence.abstain import AbstainConfig, answered_on
from compress.evidence.calibrate import CalibrateConfig, Meaning, at_one, fit_temperature, learn_meaning, write_meaning
from serve.bodies import Query
from serve.engine import Engine
from serve.limits import Limits
from serve.manifest import Manifest
from serve.openapi import document
from serve.package import load_package
from serve.predictor import Predictor
from serve.runner import scores, softmax
from train.metrics import measure
from train.sources import Items

ON = CalibrateConfig(temperature=True)


def overconfident(n: int, factor: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n, 3] that are `factor` times those from which the labels were drawn."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2, size=(n, 3))
    likely = softmax(logits, 1.0).cumsum(axis=1)
    labels = np.minimum((random.random((n, 1)) > likely).sum(axis=1), 2)
    return (factor * logits).astype(np.float32), labels


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_and_moves_no_label(factor: float) -> None:
    logits, labels = overconfident(4000, factor)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(factor, rel=0.1)
    assert (softmax(logits, found).argmax(axis=1) == logits.argmax(axis=1)).all()
    fresh, truth = overconfident(4000, factor, seed=9)
    before, after = (measure(softmax(fresh, t), truth).ece for t in (1.0, found))
    assert after < 0.03
    assert factor == 1.0 or after < before / 2


def test_nothing_is_learned_from_items_that_are_all_right() -> None:
    logits, _ = overconfident(50, 1.0)
    assert fit_temperature(logits, logits.argmax(axis=1)) == 1.0


def test_scores_can_be_had_back_as_they_were() -> None:
    logits, _ = overconfident(200, 2.0)
    assert at_one(softmax(logits, 2.5), 2.5) == pytest.approx(softmax(logits, 1.0), abs=1e-5)


def test_a_threshold_is_one_of_calibrated_scores() -> None:
    logits, labels = overconfident(2000, 3.0)
    raw, learned = (learn_meaning(logits, labels, on, AbstainConfig(precision=0.9)) for on in (CalibrateConfig(), ON))
    assert raw.temperature == 1.0
    assert 0.6 < learned.abstention.below < raw.abstention.below  # type: ignore[union-attr, operator]


@pytest.fixture
def items() -> Items:
    """Plain colours, a third of them with another label than the tiny model gives."""
    random = np.random.default_rng(0)
    colours = [colored(*rgb) for rgb in random.integers(0, 256, (120, 3)).tolist()]
    return Items(colours, np.where(random.random(120) < 0.3, 0, random.integers(1, 4, 120)))


def test_a_package_answers_with_what_it_learned(tmp_path: Path, items: Items) -> None:
    plain = tiny_package(tmp_path / "package")
    before = Predictor(plain)
    labels = scores(before, items.content).argmax(axis=1)
    known = Items(items.content, np.where(np.arange(120) % 10 == 0, (labels + 1) % 4, labels))
    found, package_id = write_meaning(plain.path, known, ON, AbstainConfig(precision=0.6), None)
    after = Predictor.load(plain.path)
    assert after.package.manifest.id == package_id != plain.manifest.id
    assert after.package.manifest.temperature == found.temperature != 1.0
    logits = before.logits(before.prepare(items.content))
    assert scores(after, items.content) == pytest.approx(softmax(logits, found.temperature))
    assert found.abstention is not None
    assert after.package.manifest.abstain_below == found.abstention.below

    given = Meaning(temperature=2.0)
    assert write_meaning(plain.path, known, ON, None, given)[0] == given  # of the weights before a refit
    assert load_package(plain.path).manifest.temperature == 2.0


def test_packages_without_a_threshold_keep_their_id(tmp_path: Path) -> None:
    """They were sealed before there were thresholds."""
    package = tiny_package(tmp_path / "package")
    assert "abstain_below" not in (package.path / "manifest.json").read_text()
    assert package.manifest.id == "31f6c72f021d6cde"
    with_one = package.manifest.model_copy(update={"abstain_below": 0.5}).sealed()
    assert with_one.id != package.manifest.id
    assert Manifest.model_validate_json(with_one.model_dump_json()).abstain_below == 0.5


def test_a_served_prediction_below_the_threshold_is_marked(tmp_path: Path) -> None:
    sure, unsure = colored(255, 0, 0), colored(90, 80, 70)
    engines = [
        Engine(Predictor(tiny_package(tmp_path / str(below), abstain_below=below)), Limits()) for below in (0.9, None)
    ]
    marked, plain = (engine.answer(Query([sure, unsure], None))["predictions"] for engine in engines)
    assert [prediction.get("abstained") for prediction in marked] == [None, True]
    assert [{**prediction, "abstained": True} for prediction in plain][1] == marked[1]
    for engine, described in zip(engines, (True, False), strict=True):
        model = engine.describe()
        prediction = document(model)["components"]["schemas"]["Prediction"]
        assert ("abstained" in prediction["properties"]) == described
        assert "abstained" not in prediction["required"]
        served = {*model, "report"}  # which the routes add: they know whether there is one
        assert served == set(document(model)["components"]["schemas"]["Model"]["properties"])
        engine.close()
    assert engines[0].describe()["abstain_below"] == 0.9


def test_a_promise_after_a_temperature_of_the_same_items_is_kept_as_often_as_was_said() -> None:
    """Ten labels, whose items change their order with the temperature; the true one is 2."""
    random = np.random.default_rng(1)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        logits = random.normal(size=(n, 10)) * random.gamma(2, 1.5, (n, 1))
        chances = softmax(logits.astype(np.float32), 1.0)
        labels = (chances.cumsum(axis=1) > random.random((n, 1))).argmax(axis=1)
        return (2 * logits).astype(np.float32), labels

    many, truth = drawn(10_000)
    config, kept = AbstainConfig(precision=0.8, confidence=0.9), []
    for _ in range(60):
        meaning = learn_meaning(*drawn(300), ON, config)
        assert meaning.abstention is not None
        below = meaning.abstention.below
        if below is not None:
            found = answered_on(softmax(many, meaning.temperature), truth, below)
            kept.append(1 - found.wrong / found.answered >= 0.8)
    assert len(kept) > 30
    assert np.mean(kept) >= 0.9
