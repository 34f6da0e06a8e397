"""The search for the highest rate, against servers that are made up."""

from __future__ import annotations

import pytest

from compress.loadtest.search import Found, Kind, Outcome, Probe, Search


class Server:
    """Holds up to `capacity`; the generator sends up to `generator`; the first `unlucky` windows break all the same."""

    def __init__(self, capacity: float, generator: float = 1e9, unlucky: int = 0) -> None:
        self.capacity, self.generator, self.unlucky = capacity, generator, unlucky
        self.windows = 0
        self.tried: list[tuple[float, Kind]] = []

    def try_rate(self, rate: float, kind: Kind) -> Probe:
        self.tried.append((rate, kind))
        self.windows += kind == "window"
        outcome: Outcome = "few" if kind == "search" else "held"
        if rate > self.generator:
            outcome = "late"
        elif rate > self.capacity or (kind == "window" and self.windows <= self.unlucky):
            outcome = "broken"
        return Probe(rate, outcome, kind)


def search(server: Server, lowest: float = 10, highest: float = 1e5) -> Found:
    return Search(server.try_rate, lowest, highest).run()


@pytest.mark.parametrize("capacity", [10.5, 37, 444, 9_000])
def test_the_rate_is_within_five_percent_below_what_the_server_holds(capacity: float) -> None:
    server = Server(capacity)
    found = search(server)
    assert found.rate is not None
    assert capacity / 1.05 <= found.rate <= capacity
    assert found.limited_by == "objective"
    assert [kind for _, kind in server.tried[-3:]] == ["window"] * 3
    assert {rate for rate, _ in server.tried[-3:]} == {found.rate}
    assert [probe.rate for probe in found.probes] == [rate for rate, _ in server.tried]


def test_a_window_that_breaks_lowers_the_rate_and_all_three_are_asked_again() -> None:
    server = Server(500, unlucky=2)
    found = search(server)
    assert found.rate is not None
    assert 500 * 0.95**3 / 1.05 < found.rate < 500 * 0.95**2 + 1
    assert [probe.outcome for probe in found.probes[-3:]] == ["held"] * 3


def test_no_rate_is_found_where_the_lowest_breaks_or_none_is_steady() -> None:
    assert search(Server(5)).rate is None
    unsteady = search(Server(500, unlucky=10**9))
    assert unsteady.rate is None
    assert unsteady.limited_by == "objective"


def test_windows_with_too_few_requests_are_not_asked_again_at_lower_rates() -> None:
    server = Server(500)

    def short(rate: float, kind: Kind) -> Probe:
        probe = server.try_rate(rate, kind)
        return Probe(rate, "few", kind) if kind == "window" and probe.fits else probe

    found = Search(short, 10, 1e5).run()
    assert (found.rate, found.limited_by) == (None, "evidence")
    assert server.windows == 1


def test_the_generator_is_named_where_it_was_the_limit() -> None:
    found = search(Server(1e9, generator=300))
    assert found.rate == pytest.approx(300, rel=0.05)
    assert found.limited_by == "generator"


def test_a_server_that_holds_the_highest_rate_is_not_pressed_further() -> None:
    found = search(Server(1e9), highest=100)
    assert (found.rate, found.limited_by) == (100, "nothing")


def test_few_requests_speak_against_no_rate_while_searching_and_hold_no_window() -> None:
    assert Probe(1, "few", "search").fits
    assert not Probe(1, "few", "window").fits
