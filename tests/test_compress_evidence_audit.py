from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from compress.evidence.audit import audit, class_changes, exemplars, reliability
from compress.evidence.statistics import drop_interval, holm
from train.metrics import measure

CLASSES = ("a", "b", "c", "unseen")
LABELS = np.repeat([0, 1, 2], [500, 300, 200])


def said(answers: np.ndarray, sure: float = 0.9) -> np.ndarray:
    """Scores [N, 4] of a model that answers so, `sure` of it."""
    rest = (1 - sure) / 3
    return (np.eye(4)[answers] * (sure - rest) + rest).astype(np.float32)


def changed(answers: np.ndarray, rows: range, to: int) -> np.ndarray:
    out = answers.copy()
    out[list(rows)] = to
    return out


BASE = changed(LABELS, range(20), 1)  # 20 of class a are wrong
OURS = changed(changed(BASE, range(5), 0), range(800, 840), 0)  # 5 of a are gained, 40 of c lost


def test_the_class_that_pays_is_found_among_those_that_do_not() -> None:
    by_label = {change.label: change for change in class_changes(OURS, BASE, LABELS, CLASSES)}
    assert list(by_label) == ["a", "b", "c"]  # a class without items has no recall
    assert [(one.n, one.lost, one.gained) for one in by_label.values()] == [(500, 0, 5), (300, 0, 0), (200, 40, 0)]
    assert by_label["c"].drop_points == 20.0
    # for all three together: each at 1 - 0.05 / 3
    together = drop_interval(40, 0, 200, 1 - 0.05 / 3)
    assert by_label["c"].drop_points_ci95 == pytest.approx((100 * together[0], 100 * together[1]))
    assert together[0] < drop_interval(40, 0, 200)[0]
    raw = [binomtest(0, 5).pvalue, 1.0, binomtest(0, 40).pvalue]
    assert [one.p for one in by_label.values()] == pytest.approx([2 * raw[0], 1.0, 3 * raw[2]])


def test_holms_correction() -> None:
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])  # worked through by hand
    assert holm(np.array([0.9, 0.8])).max() == 1.0
    assert holm(np.array([])).size == 0


def test_many_classes_do_not_raise_a_false_alarm() -> None:
    """30 classes that change by chance alone: in few of 60 runs one of them seems to."""
    random, labels = np.random.default_rng(0), np.arange(600) % 30
    names = [str(at) for at in range(30)]
    alarms = 0
    for _ in range(60):
        both = [np.where(random.random(600) < 0.2, (labels + 1) % 30, labels) for _ in range(2)]
        alarms += any(change.p < 0.05 for change in class_changes(*both, labels, names))
    assert alarms <= 4


def test_flips_are_counted_against_the_parent_too() -> None:
    found = audit(said(OURS), said(BASE), ("whole-fp32", said(LABELS)), LABELS, CLASSES, seed=0)
    assert found.parent == "whole-fp32"
    assert found.parent_flips is not None
    assert (found.parent_flips.lost, found.parent_flips.gained) == (15 + 40, 0)
    assert audit(said(OURS), said(BASE), None, LABELS, CLASSES, seed=0).parent_flips is None


def test_a_shift_of_calibration_has_an_interval_around_it() -> None:
    sure, unsure = said(BASE, 0.98), said(BASE, 0.6)  # of 98 % accuracy
    found = audit(unsure, sure, None, LABELS, CLASSES, seed=0)
    eces = [measure(scores, LABELS).ece for scores in (unsure, sure)]
    assert found.ece_change == pytest.approx(eces[0] - eces[1], abs=1e-4)
    low, high = found.ece_change_ci95
    assert 0.3 < low <= found.ece_change <= high < 0.4
    same = audit(sure, sure, None, LABELS, CLASSES, seed=0)
    assert (same.ece_change, same.ece_change_ci95) == (0.0, (0.0, 0.0))


def test_the_reliability_curve_is_what_the_ece_is_made_of() -> None:
    random = np.random.default_rng(1)
    scores = random.dirichlet([0.4] * 4, 1000).astype(np.float32)
    curve = reliability(scores, LABELS)
    assert sum(one.n for one in curve) == 1000
    assert [one.score for one in curve] == sorted(one.score for one in curve)
    ece = sum(one.n * abs(one.score - one.accuracy) for one in curve) / 1000
    assert ece == pytest.approx(measure(scores, LABELS).ece, abs=1e-5)


def test_exemplars_are_the_items_that_most_variants_flip() -> None:
    third = changed(BASE, range(838, 845), 1)
    found = exemplars([OURS, OURS, third], BASE, LABELS, [f"row {at}" for at in range(1000)], CLASSES)
    assert [(one.item, one.origin, one.flipped, one.of) for one in found[:2]] == [
        (838, "row 838", 3, 3),
        (839, "row 839", 3, 3),
    ]
    assert (found[0].label, found[0].baseline, found[0].variants) == ("c", "c", "a")
    assert len(found) == 20
    assert all(one.flipped == 2 for one in found[2:])
    assert exemplars([BASE], BASE, LABELS, [], CLASSES) == exemplars([], BASE, LABELS, [], CLASSES) == []
