"""A score below which a variant had better not answer, so that what it answers is right as often as was promised.

N items, K classes.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import beta

from compress.evidence.statistics import accuracy_interval
from serve.errors import UserError


class AbstainConfig(BaseModel):
    """[abstain]: below which score a prediction is marked, so that the others are right as often as promised."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: float = Field(gt=0, lt=1)  # the share of right answers among those given
    confidence: float = Field(default=0.95, ge=0.5, lt=1)  # of the promise, one-sided


class Abstention(BaseModel):
    """A promise and what validation says of it. `below` is None where no score can promise it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: float
    confidence: float
    below: float | None
    n: int  # validation items
    answered: int  # of them, at or above `below`
    wrong: int  # of those


class Answered(BaseModel):
    """What became of a promise on other items."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int
    answered: int
    wrong: int
    coverage_ci95: tuple[float, float]
    precision_ci95: tuple[float, float] | None  # None where nothing was answered


def choose_threshold(scores: np.ndarray, labels: np.ndarray, config: AbstainConfig) -> Abstention:
    """The lowest score at which the promise can be given: selection with guaranteed risk, on `scores` float32 [N, K].

    Geifman & El-Yaniv 2017 (arXiv 1705.08500): a binary search over the items in the order of their scores, each step
    with Clopper-Pearson's bound of the risk at a part of what may fail; the first step answers everything.
    """
    top, wrong = scores.max(axis=1), scores.argmax(axis=1) != labels
    order = np.argsort(-top, kind="stable")
    failing = (1 - config.confidence) / steps_for(len(top))

    def held(below: float) -> tuple[int, int] | None:
        """How many are answered, and how many of them wrong, if the promise holds there."""
        given = top >= below
        count, errors = int(given.sum()), int(wrong[given].sum())
        return (count, errors) if risk_bound(errors, count, failing) <= 1 - config.precision else None

    best, found = 0.0, held(0.0)
    low, high = (1, len(top)) if found is None else (0, 0)  # how many of the surest are answered
    while low < high:
        middle = (low + high) // 2
        below = float(top[order[middle - 1]])
        if now := held(below):
            best, found, low = below, now, middle + 1
        else:
            high = middle
    answered, errors = found or (0, 0)
    return Abstention(
        precision=config.precision,
        confidence=config.confidence,
        below=None if found is None else best,
        n=len(top),
        answered=answered,
        wrong=errors,
    )


def steps_for(n: int) -> int:
    """How many bounds are looked at among n items: those of the binary search, and that of answering everything."""
    return math.ceil(math.log2(max(n, 2))) + 1


def risk_bound(wrong: int, n: int, failing: float) -> float:
    """Upper limit of the share of wrong answers at one-sided 1 - `failing` (Clopper & Pearson 1934)."""
    return 1.0 if wrong >= n else float(beta.ppf(1 - failing, wrong + 1, n - wrong))


def check_promise(config: AbstainConfig | None, n: int) -> None:
    """Raise UserError for a promise that `n` validation items could not give, were all of them right."""
    if config is None:
        return
    least = risk_bound(0, n, (1 - config.confidence) / steps_for(n))
    if least > 1 - config.precision:
        raise UserError(
            f"abstain.precision = {config.precision:g} contradicts a validation split of {n} items: were all of them "
            f"right, {1 - least:.2%} could be promised",
            "promise less, or give [data] more validation items",
        )


def answered_on(scores: np.ndarray, labels: np.ndarray, below: float) -> Answered:
    """What answering from the score `below` on gives on `scores` float32 [N, K], with 95 % intervals."""
    given = scores.max(axis=1) >= below
    count, wrong = int(given.sum()), int((scores.argmax(axis=1) != labels)[given].sum())
    return Answered(
        n=len(labels),
        answered=count,
        wrong=wrong,
        coverage_ci95=accuracy_interval(count, len(labels)),
        precision_ci95=accuracy_interval(count - wrong, count) if count else None,
    )


def promise_problems(promise: Abstention | None, found: Answered | None = None) -> list[str]:
    """Why a promise cannot be given, or on other items does not hold."""
    if promise is None:
        return []
    said = f"{promise.precision:.10g} precision at {promise.confidence:.0%} confidence"
    if promise.below is None:
        return [f"no score promises {said} on the {promise.n:,} validation items"]
    if found is not None and found.precision_ci95 is not None and found.precision_ci95[1] < promise.precision:
        right = 1 - found.wrong / found.answered
        return [f"promised {said}, and has {right:.4f} on test, at most {found.precision_ci95[1]:.4f} (97.5 % limit)"]
    return []
