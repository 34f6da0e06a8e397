from __future__ import annotations

import re

import numpy as np
import pytest

from compress.evidence.drops import (
    Drop,
    check_margin,
    exact_problems,
    judged_drop,
    margin_p,
    measure_drop,
    measure_shortfall,
    metric_rows,
    perfect_limit_points,
    share_drop,
    smallest_margin_points,
)
from compress.evidence.statistics import accuracy_interval, drop_interval
from compress.recipe import Accept
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
    floor = perfect_limit_points(len(LABELS))
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


@pytest.mark.parametrize("n", [3, 10, 20, 49, 51, 52, 60])
def test_of_few_items_the_smallest_margin_passes_the_exact_test_and_hardly_any_smaller_one(n: int) -> None:
    def shown(margin: float) -> bool:
        accept = Accept(max_drop_points=margin)
        p = margin_p(accept, perfect)
        return perfect.high <= margin and not exact_problems(accept, perfect, p)

    right = np.ones(n, dtype=bool)
    perfect = share_drop(right, right)
    smallest = smallest_margin_points(n)
    assert shown(smallest)
    assert not shown(smallest - 0.06)


@pytest.mark.parametrize(("n", "points"), [(10, 31.95), (20, 16.87), (49, 7.29)])
def test_what_is_allowed_by_the_hint_is_enough_for_a_perfect_copy(n: int, points: float) -> None:
    with pytest.raises(UserError, match=f"contradicts a test split of {n} items") as refused:
        check_margin(Accept(max_drop_points=0.99 * points), n)
    named = float(re.search(r"at least ([\d.]+) points", refused.value.hint)[1])  # type: ignore[index]
    assert named == pytest.approx(points, abs=0.055)
    check_margin(Accept(max_drop_points=named), n)
    right = np.ones(n, dtype=bool)
    accept, perfect = Accept(max_drop_points=named), share_drop(right, right)
    assert exact_problems(accept, perfect, margin_p(accept, perfect)) == []


def test_of_few_items_a_target_is_held_to_the_exact_limit_but_of_macro_f1_which_has_none() -> None:
    high = Accept(max_drop_points=1, target_percent=72)
    with pytest.raises(UserError, match=r"only 69\.15 %") as refused:
        check_margin(high, 10)
    assert "at least 2.85 points" in refused.value.hint
    check_margin(high.model_copy(update={"max_drop_points": 2.86}), 10)
    check_margin(high.model_copy(update={"metric": "macro_f1"}), 10)
    check_margin(Accept(metric="macro_f1", max_drop_points=28), 10)


def shortfall(right: int, n: int, target: float, metric: str = "accuracy") -> Drop:
    """Of a variant that has the first `right` of `n` items of alternating labels right."""
    labels = np.arange(n) % 2
    answers = np.where(np.arange(n) < right, labels, 1 - labels)
    return measure_shortfall(metric, target, scores(*answers), labels, CLASSES, seed=0)


def test_the_shortfall_is_what_wilsons_interval_leaves_below_the_target() -> None:
    drop = shortfall(430, 500, target=87.0)
    low, high = accuracy_interval(430, 500)
    assert drop.points == pytest.approx(1.0)
    assert (drop.low, drop.high) == (87 - 100 * high, 87 - 100 * low)
    assert (drop.n, drop.right, drop.target, drop.lost) == (500, 430, 87.0, None)


def test_a_variant_above_the_target_has_a_negative_shortfall() -> None:
    drop = shortfall(480, 500, target=87.0)
    assert drop.points == pytest.approx(-9.0)
    assert drop.low < drop.points < drop.high < 0


def test_the_shortfall_of_recall_counts_that_labels_items() -> None:
    drop = measure_shortfall("recall:cat", 80.0, OURS, LABELS, CLASSES, seed=0)
    assert (drop.n, drop.right, drop.points) == (4, 2, 30.0)
    assert drop.high == 80 - 100 * accuracy_interval(2, 4)[0]


def test_the_shortfall_of_macro_f1_is_bootstrapped() -> None:
    drop = shortfall(430, 500, target=87.0, metric="macro_f1")
    # In two classes as frequent and as often mistaken, macro F1 is the accuracy; so is nearly its interval.
    assert drop.points == pytest.approx(1.0)
    share = shortfall(430, 500, target=87.0)
    assert (drop.low, drop.high) == pytest.approx((share.low, share.high), abs=0.4)


@pytest.mark.parametrize("right", [0, 500])
def test_a_bootstrap_without_spread_is_no_surer_than_a_share(right: int) -> None:
    drop, share = shortfall(right, 500, 87.0, "macro_f1"), shortfall(right, 500, 87.0)
    assert (drop.low, drop.high) == pytest.approx((share.low, share.high))
    assert drop.high - drop.low > 0.7


def test_the_target_is_what_is_judged_where_there_is_one() -> None:
    against_teacher = judged_drop(Accept(max_drop_points=5), OURS, BASE, LABELS, CLASSES, seed=0)
    assert against_teacher == measure_drop("accuracy", OURS, BASE, LABELS, CLASSES, seed=0)
    targeted = Accept(max_drop_points=5, target_percent=75)
    against_target = judged_drop(targeted, OURS, BASE, LABELS, CLASSES, seed=0)
    assert against_target == measure_shortfall("accuracy", 75, OURS, LABELS, CLASSES, seed=0)
    assert against_target == judged_drop(targeted, OURS, 1 - BASE, LABELS, CLASSES, seed=0)


@pytest.mark.parametrize("metric", ["accuracy", "recall:cat", "macro_f1"])
def test_a_projection_to_the_same_size_changes_nothing_and_to_more_items_is_surer(metric: str) -> None:
    drop = shortfall(430, 500, 87.0, metric)
    assert drop.projected_upper(1.0) == pytest.approx(drop.high)
    assert drop.points < drop.projected_upper(9.0) < drop.high < drop.projected_upper(0.5)


def test_a_projection_is_what_the_larger_split_then_measures() -> None:
    assert shortfall(430, 500, 87.0).projected_upper(10.0) == pytest.approx(shortfall(4300, 5000, 87.0).high)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@pytest.mark.parametrize(("n", "target", "margin"), [(500, 99.5, 0.2), (360, 100.0, 1.0)])
def test_a_target_is_refused_if_and_only_if_without_an_error_it_is_still_not_shown(
    n: int, target: float, margin: float, metric: str
) -> None:
    best = shortfall(n, n, target, metric).high
    assert best > margin
    with pytest.raises(UserError, match="contradicts a test split") as refused:
        check_margin(Accept(metric=metric, max_drop_points=margin, target_percent=target), n)
    assert f"at least {best + 0.005:.2f} points" in refused.value.hint
    check_margin(Accept(metric=metric, max_drop_points=best + 0.001, target_percent=target), n)


def test_a_low_target_may_have_a_margin_smaller_than_any_against_the_teacher() -> None:
    assert smallest_margin_points(100) > 1
    check_margin(Accept(max_drop_points=1, target_percent=87), 100)
    with pytest.raises(UserError, match="without a single item lost"):
        check_margin(Accept(max_drop_points=1), 100)
