from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import kstest

from loadtests.schedule import Phase, arrivals, length, parse_load


def test_gaps_are_exponential_and_the_rate_is_the_one_asked_for() -> None:
    times = list(arrivals([Phase(100, 200)], seed=1))
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 200
    assert kstest(np.diff(times), "expon", args=(0, 1 / 100)).pvalue > 0.01


def test_the_same_seed_gives_the_same_times_and_another_does_not() -> None:
    phases = [Phase(50, 10)]
    assert list(arrivals(phases, 3)) == list(arrivals(phases, 3))
    assert list(arrivals(phases, 3)) != list(arrivals(phases, 4))


def test_each_phase_has_its_own_rate() -> None:
    phases = parse_load("50x100, 400x20,50x100")
    times = np.array(list(arrivals(phases, 0)))
    counts = [((times >= low) & (times < high)).sum() for low, high in itertools.pairwise((0, 100, 120, 220))]
    assert counts == [pytest.approx(5000, rel=0.05), pytest.approx(8000, rel=0.05), pytest.approx(5000, rel=0.05)]
    assert length(phases) == 220


def test_seams_do_not_disturb_the_process() -> None:
    pieces = [Phase(20, 0.01)] * 10_000  # far shorter than a gap
    assert len(list(arrivals(pieces, 5))) == pytest.approx(2000, rel=0.08)
    assert list(arrivals(pieces, 5)) == pytest.approx(list(arrivals([Phase(20, 100)], 5)), rel=1e-6)


@pytest.mark.parametrize(
    "text", ["", "50", "50x", "x10", "0x10", "50x0", "-5x10", "50x10,", "nanx10", "1e9x1", "50*10"]
)
def test_what_is_no_load_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no phase: expected requests per second x seconds"):
        parse_load(text)
