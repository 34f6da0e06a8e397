from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from compress.evidence.abstain import (
    AbstainConfig,
    Abstention,
    answered_on,
    check_promise,
    choose_threshold,
    promise_problems,
    risk_bound,
)
from serve.errors import UserError


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n, 2] and labels of a model that is right as often as its score says: 50 to 100 %."""
    random = np.random.default_rng(seed)
    top, first = random.uniform(0.5, 1, n), random.random(n) < 0.5
    right = random.random(n) < top
    scores = np.where(first[:, None], np.stack([top, 1 - top], axis=1), np.stack([1 - top, top], axis=1))
    return scores, np.where(right, ~first, first).astype(np.int64)


def test_the_promise_is_kept_as_often_as_was_said() -> None:
    """By simulation, with the true precision known: (1 + t) / 2 of those that score t or more."""
    config = AbstainConfig(precision=0.85, confidence=0.9)
    found = [choose_threshold(*drawn(400, seed), config) for seed in range(400)]
    kept = [promise.below is None or (1 + promise.below) / 2 >= 0.85 for promise in found]
    assert np.mean(kept) >= 0.9
    coverage = np.mean([promise.answered / promise.n for promise in found])
    assert 0.2 < coverage < 0.6  # 0.6 is what a threshold of 0.7 would answer, were it known


def test_where_all_can_be_answered_none_is_left_out() -> None:
    scores, _ = drawn(500, 1)
    promise = choose_threshold(scores, scores.argmax(axis=1), AbstainConfig(precision=0.97))
    assert (promise.below, promise.answered, promise.wrong) == (0.0, 500, 0)
    wrong = choose_threshold(scores, 1 - scores.argmax(axis=1), AbstainConfig(precision=0.6))
    assert (wrong.below, wrong.answered) == (None, 0)
    assert "no score promises 0.6 precision" in promise_problems(wrong)[0]


def test_a_higher_promise_answers_less() -> None:
    scores, labels = drawn(5000, 2)
    found = [choose_threshold(scores, labels, AbstainConfig(precision=p)) for p in (0.74, 0.8, 0.9, 0.95)]
    assert [promise.answered for promise in found] == sorted((promise.answered for promise in found), reverse=True)
    for promise in found:
        again = answered_on(scores, labels, promise.below)
        assert (again.answered, again.wrong) == (promise.answered, promise.wrong)
        assert again.precision_ci95[0] < 1 - again.wrong / again.answered < again.precision_ci95[1]


def test_the_bound_is_clopper_pearsons() -> None:
    for wrong, n in ((0, 50), (3, 80), (79, 80)):
        bound = risk_bound(wrong, n, 0.05)
        assert binom.cdf(wrong, n, bound) == pytest.approx(0.05, rel=1e-6)
    assert risk_bound(4, 4, 0.05) == 1.0


def test_a_promise_that_no_model_could_give_is_refused_before_training() -> None:
    with pytest.raises(UserError, match=r"precision = 0.99 contradicts a validation split of 216 items") as caught:
        check_promise(AbstainConfig(precision=0.99), 216)
    assert "more validation items" in caught.value.hint
    check_promise(AbstainConfig(precision=0.97), 216)
    check_promise(None, 5)
    best = choose_threshold(np.tile([0.9, 0.1], (216, 1)), np.zeros(216, np.int64), AbstainConfig(precision=0.97))
    assert best.below == 0.0


def test_a_promise_that_test_breaks_is_told() -> None:
    promise = Abstention(precision=0.95, confidence=0.95, below=0.5, n=500, answered=400, wrong=5)
    scores, labels = np.tile([0.9, 0.1], (300, 1)), np.repeat([0, 1], [270, 30])
    assert "has 0.9000 on test, at most 0.92" in promise_problems(promise, answered_on(scores, labels, 0.5))[0]
    labels[270:290] = 0
    assert promise_problems(promise, answered_on(scores, labels, 0.5)) == []
    nothing = answered_on(scores, labels, 0.95)
    assert (nothing.answered, nothing.precision_ci95) == (0, None)
    assert promise_problems(promise, nothing) == promise_problems(None) == []
