from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import classification_report, f1_score

from serve.runner import softmax
from train.metrics import macro_f1, measure

GENERATOR = np.random.default_rng(0)
SCORES = softmax(GENERATOR.normal(0, 1.5, (500, 6)).astype(np.float32), 1.0)
LABELS = np.where(GENERATOR.random(500) < 0.6, SCORES.argmax(axis=1), GENERATOR.integers(0, 6, 500))


def test_rates_are_those_of_scikit_learn() -> None:
    ours, predicted = measure(SCORES, LABELS), SCORES.argmax(axis=1)
    theirs = classification_report(LABELS, predicted, output_dict=True)
    assert (ours.n, ours.errors) == (500, int((predicted != LABELS).sum()))
    assert ours.accuracy == pytest.approx(theirs["accuracy"])
    macro = theirs["macro avg"]
    assert (ours.macro_precision, ours.macro_recall, ours.macro_f1) == pytest.approx(
        (macro["precision"], macro["recall"], macro["f1-score"])
    )
    for row in range(6):
        expected = theirs[str(row)]
        assert ours.precision[row] == pytest.approx(expected["precision"])
        assert ours.recall[row] == pytest.approx(expected["recall"])
        assert ours.f1[row] == pytest.approx(expected["f1-score"])
        assert ours.support[row] == expected["support"]
    assert macro_f1(predicted, LABELS, 6) == pytest.approx(ours.macro_f1)


def test_rows_of_the_confusion_are_true_classes() -> None:
    scores = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    result = measure(scores, np.array([0, 0, 1, 2]))
    assert result.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_a_class_without_items_or_predictions_counts_as_zero() -> None:
    scores = np.eye(4, dtype=np.float32)[[0, 1, 1, 3]]
    labels = np.array([0, 1, 1, 0])  # 2 is absent throughout, 3 is only ever predicted
    result = measure(scores, labels)
    assert result.support.tolist() == [2, 2, 0, 0]
    assert result.recall.tolist() == [0.5, 1, 0, 0]
    assert result.precision.tolist() == [1, 1, 0, 0]
    predicted = scores.argmax(axis=1)
    expected = f1_score(labels, predicted, labels=range(4), average="macro", zero_division=0)
    assert result.macro_f1 == macro_f1(predicted, labels, 4) == pytest.approx(expected)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    sure = np.tile(np.array([[0.8, 0.2]], np.float32), (10, 1))
    labels = np.array([0] * 8 + [1] * 2)
    assert measure(sure, labels).ece == pytest.approx(0, abs=1e-6)
    assert measure(sure, 1 - labels).ece == pytest.approx(0.6, abs=1e-6)
