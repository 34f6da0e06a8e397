from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from report_factory import make_report

from compress.report import fronts, svg
from compress.report.loads import load_curve, read_loads, split_table
from compress.report.render import render_html

OBJECTIVE = "p99<20ms,errors<0.1%"


def capacity(variant: str, rate: float | None, **changes: Any) -> dict[str, Any]:
    """What `limbeck loadtest` writes, as far as the report reads it."""
    probes = [
        {"rate": 100.0, "p99_ms": 3.1, "outcome": "few"},
        {"rate": 200.0, "p99_ms": 41.0, "outcome": "broken"},
        {"rate": 150.0, "p99_ms": 11.0, "outcome": "held"},
        {"rate": 400.0, "p99_ms": None, "outcome": "broken"},
    ]
    part = {"mean_ms": 0.8, "p50_ms": 0.7, "p99_ms": 2.0, "requests": 900}
    return {
        "variant": variant,
        "package_id": "9f2c4e1ab07d3356",
        "requests_per_second": rate,
        "asked": {"objective": OBJECTIVE},
        "searches": [{"probes": probes, "limited_by": "objective"}],
        "time_split": {"compute": part},
        **changes,
    }


def write(folder: Path, *contents: Any) -> Path:
    (folder / "loadtest").mkdir(exist_ok=True)
    for at, content in enumerate(contents):
        (folder / "loadtest" / f"capacity-{at}.json").write_text(json.dumps(content))
    return folder


def test_the_curve_shows_every_rate_that_was_answered(tmp_path: Path) -> None:
    report = make_report()
    [load] = read_loads(report, write(tmp_path, capacity("resnet14-int8-static", 150.0)))
    assert load.title == f"resnet14-int8-static: 150 requests/s keep {OBJECTIVE}"
    drawn = load_curve(load)
    assert drawn is not None
    assert load_curve(load, svg.NARROW) is not None
    told = [part.get("aria-label", "") for part in ElementTree.fromstring(drawn).iter() if part.get("class") == "tip"]
    assert len(told) == 3
    assert "200 requests/s; p99 41.0\N{NO-BREAK SPACE}ms; broke the objective" in told
    page = render_html(report, [load])
    assert "Under load" in page
    assert "where the server’s time goes at that rate" in page
    assert "Under load" not in render_html(report)


def test_a_rate_that_nothing_holds_is_said() -> None:
    load = read_and_only(capacity("resnet8-fp32", None, time_split={}))
    assert load.title == f"resnet8-fp32: no rate keeps {OBJECTIVE}"
    assert split_table(load) is None
    unknown = read_and_only(capacity("resnet8-fp32", None, verdict="NO VERDICT", time_split={}))
    assert unknown.title.startswith(f"resnet8-fp32: no verdict on {OBJECTIVE}; the generator was late, or sent")
    unanswered = capacity("resnet8-fp32", None, searches=[{"probes": [], "limited_by": "objective"}])
    assert load_curve(read_and_only(unanswered)) is None


@pytest.mark.parametrize(
    "stale",
    [capacity("resnet8-fp32", 150.0, package_id="another"), capacity("gone", 150.0), {"schema": 9}, [], "no object"],
)
def test_what_was_measured_of_another_package_is_left_out(stale: Any, tmp_path: Path) -> None:
    assert read_loads(make_report(), write(tmp_path, stale)) == []


def test_accuracy_against_requests_needs_two_that_kept_the_same_objective(tmp_path: Path) -> None:
    report = make_report()
    kept = [capacity("resnet8-fp32", 500.0), capacity("resnet14-int8-static", 1000.0)]
    other = capacity("resnet14-fp32", 800.0, asked={"objective": "p99<5ms"})
    drawn = fronts.by_rate(report, read_loads(report, write(tmp_path, *kept, other)))
    assert drawn is not None
    assert "resnet14-fp32" not in drawn
    assert f"requests a second that keep {OBJECTIVE.replace('<', '&lt;')}" in drawn
    ticks = [part.text for part in ElementTree.fromstring(drawn).iter() if part.text in ("1000", "500", "200")]
    assert ticks == ["1000", "500"]
    assert fronts.by_rate(report, read_loads(report, tmp_path)[:1]) is None
    assert fronts.by_rate(report, []) is None


def read_and_only(content: dict[str, Any]) -> Any:
    from compress.report.loads import _load

    return _load(content)
