from __future__ import annotations

import pytest

from loadtests.objective import EXIT, Objective, Verdict, judge, parse_objective
from loadtests.samples import Histogram, Samples


def samples(right: int, wrong: int = 0, slow: int = 0) -> Samples:
    found = Samples()
    for at in range(right):
        found.answered(at % 60, 50.0 if at < slow else 2.0)
    for at in range(wrong):
        found.failed(at % 60, "status 500")
    return found


def verdict(text: str, found: Samples, lag_ms: float = 0.1, open_loop: bool = True) -> tuple[Verdict, str]:
    lag = Histogram()
    lag.add(lag_ms)
    judged = judge(parse_objective(text), found.after(0), lag, open_loop)
    return judged.verdict, "; ".join(judged.reasons)


def test_an_objective_is_read() -> None:
    assert parse_objective("p99<20ms,errors<0.1%") == Objective(((99.0, 20.0),), 0.1)
    assert parse_objective(" p50 < 1.5 ms , p99.9<2s") == Objective(((50.0, 1.5), (99.9, 2000.0)), None)
    assert parse_objective("errors<1%").tightest is None


@pytest.mark.parametrize("text", ["", "p99<20", "p99>20ms", "p100<20ms", "error<1%", "p99<20ms;errors<1%", "99<20ms"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected as in p99<20ms,errors<0\.1%"):
        parse_objective(text)


def test_what_holds_passes_and_says_by_how_much() -> None:
    assert verdict("p99<20ms,errors<0.1%", samples(20_000, wrong=10, slow=150)) == (
        "PASS",
        "p99 is 2.00 ms, below 20; 0.05 % of 20,010 requests failed, below 0.1 %",
    )


@pytest.mark.parametrize(
    ("text", "found", "reason"),
    [
        ("p99<20ms", samples(20_000, slow=300), "p99 is 50.00 ms, not below 20"),
        ("p95<20ms", samples(100, slow=10), "p95 is 50.00 ms, not below 20"),  # broken is broken, however few they are
        ("p50<20ms,errors<0.1%", samples(5_000, wrong=20), "0.398 % of 5,020 requests failed, not below 0.1 %"),
        ("p50<20ms", samples(5_000, wrong=100), "5,000 of 5,100 requests were answered rightly, not 99 %"),
    ],
)
def test_what_is_broken_fails(text: str, found: Samples, reason: str) -> None:
    assert verdict(text, found) == ("FAIL", reason)


def test_what_the_test_cannot_show_gets_no_verdict() -> None:
    kind, why = verdict("p99<20ms", samples(3_000))
    assert (kind, "10,000 are needed" in why) == ("NO VERDICT", True)
    kind, why = verdict("p90<20ms", samples(3_000), lag_ms=1.5)
    assert (kind, "the generator itself was late by 1.50 ms" in why) == ("NO VERDICT", True)
    assert verdict("p90<20ms", samples(3_000, slow=3_000), lag_ms=1.5)[0] == "NO VERDICT"  # broken by the generator?
    assert verdict("p90<40ms", samples(3_000), lag_ms=1.5)[0] == "PASS"  # 5 % of the limit
    assert verdict("p90<20ms", samples(3_000), lag_ms=1.5, open_loop=False)[0] == "PASS"
    assert verdict("errors<1%", Samples()) == ("NO VERDICT", "no request was sent")


def test_each_verdict_has_an_exit_status_of_its_own() -> None:
    assert EXIT == {"PASS": 0, "FAIL": 1, "NO VERDICT": 3}
