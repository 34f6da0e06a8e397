from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from compress.evidence.choose import Measured, Refitted, choose, limit_problems
from compress.evidence.drops import smallest_margin_points
from compress.evidence.statistics import accuracy_interval, drop_interval
from compress.packaging import Parity
from compress.recipe import Accept
from compress.report.schema import Choice, Latency
from compress.variants import Variant
from serve.errors import UserError

N = 400
LABELS = np.arange(N) % 2
BASE = np.eye(2, dtype=np.float32)[LABELS]  # the baseline is always right


def latency(p50: float, p95: float | None = None) -> Latency:
    p95 = p50 * 1.5 if p95 is None else p95
    return Latency(batch=1, threads=1, total_p50=p50, total_p95=p95, total_p99=None, compute_p50=p50 / 2, n=100)


def candidate(name: str, lost: int = 0, ms: float = 1.0, size: int = 1000, p95: float | None = None) -> Measured:
    """A candidate that gets its first `lost` items wrong."""
    answers = BASE.copy()
    answers[:lost] = answers[:lost, ::-1]
    return Measured(Variant(name, "student", "fp32"), answers, latency(ms, p95), size)


def chosen(accept: Accept, *candidates: Measured, test_size: int = N) -> Choice:
    return choose(accept, list(candidates), BASE, LABELS, ("even", "odd"), test_size, seed=0)


ACCEPT = Accept(max_drop_points=3)


def test_the_fastest_of_those_within_the_margin_is_chosen() -> None:
    choice = chosen(ACCEPT, candidate("slow", ms=3), candidate("fast", lost=2, ms=1), candidate("bad", lost=90, ms=0.1))
    assert choice.id == "fast-fp32"
    assert [(row.id, row.eligible) for row in choice.ranking] == [
        ("fast-fp32", True),
        ("slow-fp32", True),
        ("bad-fp32", False),
    ]
    assert "over the margin of 3" in choice.ranking[-1].why


def test_of_two_as_fast_the_smaller_is_chosen() -> None:
    large, small = candidate("large", ms=1.00, size=9000), candidate("small", ms=1.04, size=5000)
    assert chosen(ACCEPT, large, small).id == "small-fp32"
    assert chosen(ACCEPT, large, candidate("small", ms=1.06, size=5000)).id == "large-fp32"


def test_the_smallest_may_be_preferred() -> None:
    accept = Accept(max_drop_points=3, prefer="size")
    assert chosen(accept, candidate("large", ms=1, size=9000), candidate("small", ms=9, size=10)).id == "small-fp32"


def test_limits_on_latency_and_size_make_ineligible() -> None:
    accept = Accept(max_drop_points=3, max_p95_ms=2.0, max_size_mb=0.005)
    fast_but_jittery = candidate("jittery", ms=0.5, p95=2.1)
    choice = chosen(accept, fast_but_jittery, candidate("large", ms=0.7, size=5001), candidate("fits", ms=1, size=5000))
    assert choice.id == "fits-fp32"
    why = {row.id: row.why for row in choice.ranking}
    assert why["jittery-fp32"] == "p95 is 2.1 ms, over 2 ms"
    assert "the size is" in why["large-fp32"]
    assert limit_problems(accept, latency(1, 2.0), 5000) == []


def test_where_none_is_eligible_the_nearest_is_named_and_no_one_claims_more() -> None:
    choice = chosen(Accept(max_drop_points=1), candidate("worse", lost=60, ms=0.1), candidate("near", lost=30, ms=5))
    assert choice.id == "near-fp32"
    assert "no candidate was eligible" in choice.reason
    assert not any(row.eligible for row in choice.ranking)


def test_the_margin_is_judged_at_the_size_of_the_test_split() -> None:
    accept = Accept(max_drop_points=1.5)
    lost_two = candidate("student", lost=2)
    small, large = chosen(accept, lost_two, test_size=N), chosen(accept, lost_two, test_size=10_000)
    assert small.ranking[0].drop_points_upper == pytest.approx(100 * drop_interval(2, 0, N)[1])
    assert large.ranking[0].drop_points_upper == pytest.approx(100 * drop_interval(50, 0, 10_000)[1])
    assert (small.ranking[0].eligible, large.ranking[0].eligible) == (False, True)
    perfect = chosen(accept, candidate("copy"), test_size=10_000).ranking[0]
    assert perfect.drop_points_upper == pytest.approx(smallest_margin_points(10_000))


def test_the_recipes_own_metric_decides() -> None:
    """Both lose 6 items, `even` only of the first class, and so all of its recall's loss."""
    even, mixed = candidate("even", ms=1), candidate("mixed", lost=6, ms=2)
    even.scores[0:12:2] = even.scores[0:12:2, ::-1]
    accept = Accept(metric="recall:even", max_drop_points=4.5)
    choice = chosen(accept, even, mixed)
    drops = {row.id: row.drop_points for row in choice.ranking}
    assert drops == pytest.approx({"even-fp32": 3.0, "mixed-fp32": 1.5})
    assert choice.id == "mixed-fp32"
    assert chosen(Accept(max_drop_points=4.5), even, mixed).id == "even-fp32"


def test_nothing_to_choose_from_is_a_user_error() -> None:
    with pytest.raises(UserError, match="nothing to choose from"):
        chosen(ACCEPT)


def test_a_target_makes_eligible_what_the_teacher_would_not() -> None:
    """40 of 400 wrong: 10 points below the teacher, and at the target."""
    near, far = candidate("near", lost=40, ms=2), candidate("far", lost=80, ms=1)
    assert not any(row.eligible for row in chosen(Accept(max_drop_points=4), near, far).ranking)
    choice = chosen(Accept(max_drop_points=4, target_percent=90), near, far)
    assert [(row.id, row.eligible) for row in choice.ranking] == [("near-fp32", True), ("far-fp32", False)]
    row = choice.ranking[0]
    assert row.drop_points == pytest.approx(0.0)
    assert row.drop_points_upper == pytest.approx(90 - 100 * accuracy_interval(360, 400)[0])
    assert re.fullmatch(
        r"accuracy could be as low as 75\.\d\d % \(97\.5 % limit\), under the target of 90 % less the margin of 4",
        choice.ranking[1].why,
    )


def test_a_target_is_judged_at_the_size_of_the_test_split() -> None:
    accept, at_target = Accept(max_drop_points=1, target_percent=90), candidate("student", lost=40)
    small, large = chosen(accept, at_target), chosen(accept, at_target, test_size=10_000)
    assert (small.ranking[0].eligible, large.ranking[0].eligible) == (False, True)
    assert large.ranking[0].drop_points_upper == pytest.approx(90 - 100 * accuracy_interval(9000, 10_000)[0])
    assert "the highest lower limit of accuracy" in small.reason


@pytest.mark.parametrize("target", [None, 97.0])
def test_a_labels_recall_is_projected_to_the_items_that_test_has_of_it(target: float | None) -> None:
    """Half of the items are even, in a test split of any size."""
    accept = Accept(metric="recall:even", max_drop_points=50, target_percent=target)
    row = chosen(accept, candidate("student", lost=12), test_size=4 * N).ranking[0]
    n, lost = 4 * N / 2, 4 * 6
    expected = drop_interval(lost, 0, n)[1] if target is None else 0.97 - accuracy_interval(n - lost, n)[0]
    assert row.drop_points_upper == pytest.approx(100 * expected)


def refit(then: int, now: int) -> Refitted:
    """So many of the items are answered otherwise than by the fp32 package, before the refit and after it."""
    before, after = (Parity(against="fast-fp32", n=N, max_abs=0.5, disagreements=count) for count in (then, now))
    return Refitted(before, after)


@pytest.mark.parametrize(("then", "now", "eligible"), [(2, 3, True), (40, 40, True), (2, 20, True), (2, 60, False)])
def test_refitted_weights_that_do_not_survive_quantization_are_not_chosen(then: int, now: int, eligible: bool) -> None:
    """Validation cannot show it: its scores are of the weights before. A little more may be chance."""
    fast = replace(candidate("fast", ms=1), refit=refit(then, now))
    choice = chosen(ACCEPT, fast, candidate("slow", ms=3))
    assert choice.id == ("fast-fp32" if eligible else "slow-fp32")
    row = next(row for row in choice.ranking if row.id == "fast-fp32")
    assert row.eligible == eligible
    assert eligible or row.why == (
        "it changes 15.0 % of the answers of fast-fp32 on validation, and before the refit 0.5 %"
    )
