"""Rank the candidates on validation and freeze the choice, before the test split is looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compress.evidence.drops import Drop, judged_drop, spoken
from compress.evidence.statistics import accuracy_interval
from compress.packaging import Parity
from compress.recipe import Accept
from compress.report.schema import Candidate, Choice, Latency
from compress.variants import Variant
from serve.errors import UserError

MB = 1_000_000
# Two medians closer than this are the same on a noisy machine; the smaller package is then the better choice.
SAME_LATENCY = 1.05


@dataclass(frozen=True)
class Refitted:
    """How a package differs from what it was made from, on validation: from before a refit, and the one that ships."""

    before: Parity
    after: Parity


@dataclass(frozen=True)
class Measured:
    """What is known of a candidate before test."""

    variant: Variant
    scores: np.ndarray  # float32 [N, K], on validation; where the model was refitted, of the weights before
    latency: Latency  # batch 1, and the threads with which it is served
    size_bytes: int
    refit: Refitted | None = None
    problems: tuple[str, ...] = ()  # what else validation has against it


def choose(
    accept: Accept,
    candidates: list[Measured],
    baseline: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...],
    test_size: int,
    seed: int,
) -> Choice:
    """The candidate to be judged on test: the fastest (or smallest) of those that can be expected to pass.

    A candidate is eligible when its drop on validation, with the interval that a test split of `test_size` items will
    have, stays within the margin, and when it meets the limits on latency and size. Where none is, the nearest is
    chosen, so that there is something to report; it will most likely fail. The validation split is often the smaller
    one: judging by its own, wider interval would reject what test accepts.
    """
    if not candidates:
        raise UserError("there is nothing to choose from", "add [[students]] or a precision to the recipe")
    ranking = []
    for candidate in candidates:
        drop = judged_drop(accept, candidate.scores, baseline, labels, classes, seed)
        # Of the items of one label, too, test has that many times as many as validation.
        ranking.append(_judge(accept, candidate, drop, drop.projected_upper(test_size / len(labels))))
    eligible = [row for row in ranking if row.eligible]
    if eligible:
        best = _best(accept, eligible)
        reason = _why(accept, best, eligible, len(ranking))
    else:
        best = min(ranking, key=lambda row: (row.drop_points_upper, row.total_p50_ms))
        nearest = "the lowest upper limit of the drop"
        if accept.target_percent is not None:
            nearest = f"the highest lower limit of {spoken(accept.metric)}"
        reason = f"no candidate was eligible on validation; {best.id} has {nearest}"
    ranking.sort(key=lambda row: (row.id != best.id, not row.eligible, row.total_p50_ms))
    return Choice(id=best.id, reason=reason, ranking=ranking)


def _judge(accept: Accept, candidate: Measured, drop: Drop, upper: float) -> Candidate:
    problems = problems_of(accept, upper, candidate.latency, candidate.size_bytes) + list(candidate.problems)
    if candidate.refit is not None:
        problems += _refit_problems(accept, candidate.refit)
    return Candidate(
        id=candidate.variant.id,
        eligible=not problems,
        drop_points=drop.points,
        drop_points_upper=upper,
        total_p50_ms=candidate.latency.total_p50,
        total_p95_ms=candidate.latency.total_p95,
        size_bytes=candidate.size_bytes,
        why="; ".join(problems) or "within every limit",
    )


def problems_of(accept: Accept, upper: float, latency: Latency, size_bytes: int) -> list[str]:
    """What breaks the margin or another limit; `upper` is the upper 97.5 % limit of the judged drop, in points."""
    return margin_problems(accept, upper) + limit_problems(accept, latency, size_bytes)


def margin_problems(accept: Accept, upper: float) -> list[str]:
    """What breaks the margin; empty when nothing does."""
    return [_over_the_margin(accept, upper)] if upper > accept.max_drop_points else []


def limit_problems(accept: Accept, latency: Latency, size_bytes: int) -> list[str]:
    """What breaks the limits on latency (p95 at batch 1, as served) and size; empty when nothing does."""
    problems = []
    if accept.max_p95_ms is not None and latency.total_p95 > accept.max_p95_ms:
        problems.append(f"p95 is {latency.total_p95:.3g} ms, over {accept.max_p95_ms:g} ms")
    if accept.max_size_mb is not None and size_bytes > accept.max_size_mb * MB:
        problems.append(f"the size is {size_bytes / MB:.3g} MB, over {accept.max_size_mb:g} MB")
    return problems


def _refit_problems(accept: Accept, refit: Refitted) -> list[str]:
    """What shows that the refitted weights do not survive quantization as those did with which the choice is made.

    Labels are not looked at: the refitted weights have learned them. An answer that is changed is at worst one that is
    lost, so the share of changed answers may be higher by the margin; more must be sure at 97.5 % on either side.
    """
    (least, _), (_, most) = (
        accuracy_interval(parity.disagreements, parity.n) for parity in (refit.after, refit.before)
    )
    if 100 * (least - most) <= accept.max_drop_points:
        return []
    now, then = (100 * parity.disagreements / parity.n for parity in (refit.after, refit.before))
    source = refit.after.against
    return [f"it changes {now:.1f} % of the answers of {source} on validation, and before the refit {then:.1f} %"]


def _over_the_margin(accept: Accept, upper: float) -> str:
    metric, margin, target = spoken(accept.metric), accept.max_drop_points, accept.target_percent
    if target is None:
        return f"the drop in {metric} could be up to {upper:.2f} points (97.5 % limit), over the margin of {margin:g}"
    return (
        f"{metric} could be as low as {target - upper:.2f} % (97.5 % limit), under the target of {target:g} % less "
        f"the margin of {margin:g}"
    )


def _why(accept: Accept, best: Candidate, eligible: list[Candidate], total: int) -> str:
    """Why `best` and not the next: a reader who expected int8 to win wants to see the figures."""
    first = f"{best.id} is the {'fastest' if accept.prefer == 'latency' else 'smallest'}"
    others = [row for row in eligible if row.id != best.id]
    if not others:
        return f"{first}, being the only one of {total} candidates that is eligible on validation"
    by_latency = accept.prefer == "latency"
    next_ = min(others, key=lambda row: row.total_p50_ms if by_latency else row.size_bytes)
    figures = [f"{row.total_p50_ms:.3g} ms, {row.size_bytes / 1000:,.0f} KB" for row in (best, next_)]
    within = by_latency and next_.total_p50_ms <= best.total_p50_ms * SAME_LATENCY
    tie = f" (medians within {SAME_LATENCY - 1:.0%} count as equal, and the smaller wins)" if within else ""
    return (
        f"{first} of {len(eligible)} eligible candidates (of {total}) on validation: {figures[0]}, "
        f"against {figures[1]} for {next_.id}{tie}"
    )


def _best(accept: Accept, eligible: list[Candidate]) -> Candidate:
    if accept.prefer == "size":
        return min(eligible, key=lambda row: (row.size_bytes, row.total_p50_ms))
    fastest = min(row.total_p50_ms for row in eligible)
    as_fast = [row for row in eligible if row.total_p50_ms <= fastest * SAME_LATENCY]
    return min(as_fast, key=lambda row: (row.size_bytes, row.total_p50_ms))
