from __future__ import annotations

import numpy as np
import pytest

from compress.drops import measure_drop, metric_rows, share_drop, smallest_margin_points
from compress.statistics import drop_interval
from serve.errors import UserError

CLASSES = ("cat", "dog")
LABELS = np.array([0, 0, 0, 0, 1, 1])


def scores(*predicted: int) -> np.ndarray:
    return np.eye(2, dtype=np.float32)[list(predicted)]


BASE = scores(0, 0, 0, 1, 1, 0)  # wrong on items 3 and 5
OURS = scores(0, 1, 1, 0, 1, 1)  # wrong on items 1 and 2


def test_accuracy_counts_every_item_against_its_pair() -> None:
    drop = measure_drop("accuracy", OURS, BASE, LABELS, CLASSES, seed=0)
    assert (drop.lost, drop.gained, drop.n, drop.points) == (2, 2, 6, 0.0)
    assert (drop.low, drop.high) == tuple(100 * limit for limit in drop_interval(2, 2, 6))


def test_recall_of_a_label_counts_that_labels_items() -> None:
    cats = measure_drop("recall:cat", OURS, BASE, LABELS, CLASSES, seed=0)
    assert (cats.lost, cats.gained, cats.n, cats.points) == (2, 1, 4, 25.0)
    dogs = measure_drop("recall:dog", OURS, BASE, LABELS, CLASSES, seed=0)
    assert (dogs.lost, dogs.gained, dogs.n, dogs.points) == (0, 1, 2, -50.0)


def test_macro_f1_is_that_of_the_baseline_minus_ours() -> None:
    drop = measure_drop("macro_f1", OURS, BASE, LABELS, CLASSES, seed=0)
    base = (2 * 3 / (4 + 4) + 2 * 1 / (2 + 2)) / 2
    ours = (2 * 2 / (2 + 4) + 2 * 2 / (4 + 2)) / 2
    assert drop.points == pytest.approx(100 * (base - ours))
    assert drop.low < drop.points < drop.high
    assert (drop.lost, drop.gained) == (None, None)


def test_macro_f1_against_itself_is_no_surer_than_a_share_without_a_lost_item() -> None:
    drop = measure_drop("macro_f1", BASE, BASE, LABELS, CLASSES, seed=0)
    floor = smallest_margin_points(len(LABELS))
    assert (drop.points, drop.low, drop.high) == (0.0, -floor, floor)


def test_a_lost_item_is_a_positive_drop() -> None:
    right, wrong = np.ones(100, dtype=bool), np.arange(100) < 97
    assert share_drop(wrong, right).points == pytest.approx(3.0)
    assert share_drop(right, wrong).points == pytest.approx(-3.0)


def test_an_unknown_label_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="there is no label 'cta'") as refused:
        metric_rows("recall:cta", LABELS, CLASSES)
    assert refused.value.hint == "did you mean 'cat'?"


def test_a_label_without_items_is_explained() -> None:
    with pytest.raises(UserError, match="no item of the split has this label"):
        measure_drop("recall:dog", OURS[:4], BASE[:4], LABELS[:4], CLASSES, seed=0)


@pytest.mark.parametrize(("n", "points"), [(360, 1.06), (1821, 0.21), (10_000, 0.038)])
def test_the_smallest_margin_is_what_a_perfect_copy_leaves_open(n: int, points: float) -> None:
    assert smallest_margin_points(n) == pytest.approx(points, rel=0.02)
    perfect = np.ones(n, dtype=bool)
    assert share_drop(perfect, perfect).high == smallest_margin_points(n)
