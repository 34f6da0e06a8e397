"""`limbeck loadtest` against real servers, at rates that any machine holds."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_run import Ran
from typer.testing import CliRunner

from compress.cli import app
from compress.loadtest import Asked, generator, loadtest
from compress.loadtest.generator import Generator, evidence, on_cores, split_cores
from compress.loadtest.measure import Capacity
from compress.loadtest.search import Found, Probe
from compress.loadtest.split import Part
from serve.errors import UserError

EASY = "errors<50%"  # holds on any machine, however busy


@pytest.fixture
def copy(tiny: Ran, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.folder, tmp_path / "run"))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer requests at each rate that is tried than a verdict needs: 2,000 at 10/s take minutes."""
    monkeypatch.setattr(generator, "_SEARCH_REQUESTS", 40)


def test_a_rate_is_found_and_everything_that_was_tried_is_written(copy: Path, few: None) -> None:
    said: list[str] = []
    selection = json.loads((copy / "report.json").read_text())["selected"]
    asked = Asked(
        EASY, repeats=1, seconds=3.0, lowest=20.0, highest=20.0, variant=selection
    )  # by name: it is still one
    assert loadtest(copy, asked, said.append)
    written = json.loads((copy / "loadtest" / "capacity.json").read_text())
    report = json.loads((copy / "report.json").read_text())
    assert written["variant"] == report["selected"]
    assert written["verdict"] == "PASS"
    assert written["requests_per_second"] == 20.0
    assert [probe["kind"] for probe in written["searches"][0]["probes"]] == ["search", "window", "window", "window"]
    assert written["searches"][0]["limited_by"] == "nothing"
    assert {"queue", "compute", "total"} < set(written["time_split"])
    assert written["time_split"]["total"]["requests"] >= 100  # of three windows at 20/s, warmed up for 2 s each
    assert list((copy / "loadtest").glob("capacity*.json")) == [copy / "loadtest" / "capacity.json"]
    assert any(line.startswith("time in the server") for line in said)
    assert any(line.startswith("PASS: 20 requests/s keep errors<50%") for line in said)


def test_a_package_that_was_not_selected_is_loaded_with_its_own_answers(copy: Path, few: None) -> None:
    asked = Asked(EASY, repeats=1, seconds=2.0, lowest=20.0, highest=20.0, variant="teacher-int8-static")
    assert loadtest(copy, asked, lambda _: None)
    written = json.loads((copy / "loadtest" / "capacity-teacher-int8-static.json").read_text())
    assert written["variant"] == "teacher-int8-static"
    assert all(probe["outcome"] == "held" for probe in written["searches"][0]["probes"][1:])  # wrong answers would fail
    assert "teacher-int8-static: 20.0 requests/s keep" in (copy / "report.html").read_text()


def test_an_objective_that_nothing_keeps_ends_with_status_3(copy: Path, few: None) -> None:
    command = ["loadtest", str(copy), "--slo", "p50<0.001ms", "--repeats", "1", "--seconds", "2"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 3, result.output
    verdicts = ("FAIL: no rate keeps p50<0.001ms", "NO VERDICT: the generator was late")  # as it is on a busy machine
    assert any(verdict in result.output for verdict in verdicts), result.output
    assert json.loads((copy / "loadtest" / "capacity.json").read_text())["requests_per_second"] is None


def test_what_cannot_be_loaded_is_told(copy: Path) -> None:
    with pytest.raises(UserError, match="--body text: images are sent as json, multipart, raw"):
        loadtest(copy, Asked(EASY, body="text"))
    with pytest.raises(UserError, match="load generator ended before it had measured") as refused:
        loadtest(copy, Asked("p99<20", repeats=1))
    assert "expected as in p99<20ms" in refused.value.hint
    with pytest.raises(UserError, match="no package 'teacher-int8'") as unknown:
        loadtest(copy, Asked(EASY, variant="teacher-int8"))
    assert "teacher-int8-static" in unknown.value.hint
    report = json.loads((copy / "report.json").read_text())
    (copy / "report.json").write_text(json.dumps({**report, "selected": None}))
    with pytest.raises(UserError, match="has no selection to load"):
        loadtest(copy, Asked(EASY))


def test_the_lowest_of_the_searches_counts_and_all_must_find_one() -> None:
    found = [Found(rate, "objective", ()) for rate in (120.0, 100.0, 110.0)]
    assert Capacity(tuple(found), Asked("p99<20ms")).rate == 100.0
    assert Capacity(tuple(found), Asked("p99<20ms", at_least=100)).passed
    assert not Capacity(tuple(found), Asked("p99<20ms", at_least=101)).passed
    assert Capacity((*found, Found(None, "objective", ())), Asked("p99<20ms")).rate is None
    assert "(the lowest of 120, 100, 110)" in Capacity(tuple(found), Asked("p99<20ms")).lines()[0]
    late = Capacity((Found(50.0, "generator", ()),), Asked("p99<20ms"))
    assert "the generator was late, not the server" in late.lines()[1]


@pytest.mark.parametrize(("slowest", "said"), [(1.05, False), (1.5, True)])
def test_a_machine_whose_speed_changes_meanwhile_is_told(slowest: float, said: bool) -> None:
    def found(rate: float, compute_ms: float) -> Found:
        split = {"compute": Part(compute_ms, compute_ms, compute_ms, 10_000)}
        held = Probe(rate, "held", "window", 9.0, (), split)
        tried = Probe(2 * rate, "broken", "search", 99.0, (), {"compute": Part(9.0, 9.0, 9.0, 100)})
        return Found(rate, "objective", (tried, held, held))

    capacity = Capacity((found(120.0, 1.0), found(80.0, slowest), Found(None, "objective", ())), Asked("p99<20ms"))
    assert capacity.model_ms == [1.0, slowest]
    words = "1.00 ms a request in one search and 1.50 in another: this machine's speed changes, by 1.50x"
    assert any(words in line for line in capacity.lines()) is said


def test_a_generator_that_is_late_from_the_start_says_nothing_of_the_server() -> None:
    late, broken = Found(None, "generator", ()), Found(None, "objective", ())
    unknown = Capacity((late, Found(90.0, "objective", ())), Asked("p99<20ms"))
    assert (unknown.verdict, unknown.passed) == ("NO VERDICT", False)
    assert unknown.lines()[0].startswith("NO VERDICT: the generator was late even at the lowest rate")
    assert Capacity((late, broken), Asked("p99<20ms")).verdict == "FAIL"


@pytest.mark.parametrize(("seconds", "hint"), [(5.0, "leave --seconds out"), (None, "ask for a lower one")])
def test_windows_that_are_too_short_to_show_anything_are_no_fail(seconds: float | None, hint: str) -> None:
    short = Capacity((Found(None, "evidence", ()),), Asked("p99<20ms", seconds=seconds))
    assert short.verdict == "NO VERDICT"
    assert hint in short.lines()[1]


def test_evidence_follows_the_highest_percentile() -> None:
    assert evidence("p99<20ms,errors<1%") == pytest.approx(10_000)
    assert evidence("p50<2ms,p99.9<20ms") == pytest.approx(100_000)
    assert evidence("errors<1%") == 2_000


def test_what_is_started_inside_runs_on_the_cores_that_were_named() -> None:
    server, generator = split_cores()
    if generator is None:
        pytest.skip("one core")
    assert server is not None
    assert not server & generator
    before = os.sched_getaffinity(0)
    with on_cores(generator):
        assert os.sched_getaffinity(0) == generator
    assert os.sched_getaffinity(0) == before


def test_a_search_is_shorter_than_a_window_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    lasted: list[float] = []

    def send(self: Generator, rate: float, seconds: float) -> dict[str, Any]:
        lasted.append(seconds - self.warm_up)
        return {"cause": "held", "summary": {"p99_ms": None}, "reasons": []}

    monkeypatch.setattr(Generator, "send", send)
    monkeypatch.setattr(generator, "snapshot", lambda url: {})
    sending = Generator("http://127.0.0.1:1", Path(), "p99<20ms", Path(), most_seconds=8.0)
    for rate in (10.0, 1000.0):
        sending.try_rate(rate, "search")
    sending.try_rate(100.0, "window")
    assert lasted == [8.0, 5.0, pytest.approx(105.0)]


def test_a_generator_that_is_late_once_is_asked_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    causes = iter(["late", "held", "late", "late", "late"])

    def send(self: Generator, rate: float, seconds: float) -> dict[str, Any]:
        return {"cause": next(causes), "summary": {"p99_ms": None}, "reasons": []}

    monkeypatch.setattr(Generator, "send", send)
    monkeypatch.setattr(generator, "snapshot", lambda url: {})
    sending = Generator("http://127.0.0.1:1", Path(), "p99<20ms", Path())
    assert sending.try_rate(10.0, "search").outcome == "held"
    assert sending.try_rate(10.0, "search").outcome == "late"
    assert sending.try_rate(10.0, "window").outcome == "late"  # what a verdict rests on is not tried until it suits
