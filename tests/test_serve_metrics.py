from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from serve.answers import Answer
from serve.metrics import OTHERS, ModelMetrics
from serve.stopwatch import PHASES, Stopwatch


def _value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def _answer(*best: tuple[str, float]) -> Answer:
    stopwatch = Stopwatch()
    for phase in PHASES[:-1]:
        stopwatch.lap(phase)
    unreadable = {"error": {"code": "not_an_image"}}
    return Answer(b"{}", [*({"label": label, "score": score} for label, score in best), unreadable], stopwatch)


def test_an_answer_is_counted_by_status_label_confidence_and_phase() -> None:
    metrics = ModelMetrics("m1", ["cat", "dog"], {})
    metrics.count(200, _answer(("cat", 0.9), ("cat", 0.5), ("dog", 0.72)))
    metrics.count(429, None)
    assert _value("limbeck_requests_total", model="m1", status="200") == 1
    assert _value("limbeck_requests_total", model="m1", status="429") == 1
    assert _value("limbeck_predictions_total", model="m1", label="cat") == 2
    assert _value("limbeck_predictions_total", model="m1", label="dog") == 1
    assert _value("limbeck_confidence_bucket", model="m1", le="0.5") == 1
    assert _value("limbeck_confidence_bucket", model="m1", le="0.75") == 2
    assert _value("limbeck_request_seconds_count", model="m1") == 1
    for phase in PHASES:
        assert _value("limbeck_phase_seconds_count", model="m1", phase=phase) == 1


def test_the_phases_add_up_to_the_whole() -> None:
    ModelMetrics("m2", ["a", "b"], {}).count(200, _answer(("a", 1.0)))
    parts = [_value("limbeck_phase_seconds_sum", model="m2", phase=phase) or 0.0 for phase in PHASES]
    assert sum(parts) == pytest.approx(_value("limbeck_request_seconds_sum", model="m2"))
    assert min(parts) >= 0


def test_a_model_of_many_classes_makes_no_more_than_a_hundred_and_one_series() -> None:
    labels = [f"class {number}" for number in range(1000)]
    metrics = ModelMetrics("m3", labels, {"labels": dict.fromkeys(labels, 0.001)})
    metrics.count(200, _answer(*((label, 0.5) for label in labels)))
    assert _value("limbeck_predictions_total", model="m3", label=OTHERS) == 900
    assert _value("limbeck_expected_share", model="m3", label=OTHERS) == pytest.approx(0.9)
    assert _value("limbeck_predictions_total", model="m3", label="class 100") is None


def test_what_the_test_split_promised_stands_beside_what_is_counted() -> None:
    ModelMetrics("m4", ["a", "b"], {"labels": {"a": 0.75, "b": 0.25}, "confidence": {"0.5": 0.1}})
    assert _value("limbeck_expected_share", model="m4", label="a") == 0.75
    assert _value("limbeck_expected_confidence_share", model="m4", le="0.5") == 0.1
