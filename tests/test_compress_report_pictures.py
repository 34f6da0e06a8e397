"""The fronts, the distributions, the calibration curve and the gallery of flips."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from report_factory import make_report

from compress.report import facts, fronts, svg
from compress.report.distributions import distributions
from compress.report.gallery import gallery
from compress.report.reliability import calibration
from compress.report.render import render_html
from compress.report.schema import Audit, ReliabilityBin, Report


def tips(drawn: str) -> list[str]:
    root = ElementTree.fromstring(drawn)
    return [part.get("aria-label", "") for part in root.iter() if part.get("class") == "tip"]


def with_audit() -> Report:
    report = make_report()
    choice = facts.chosen(report)
    assert choice is not None
    bins = [ReliabilityBin(n=n, score=score, accuracy=right) for n, score, right in ((40, 0.6, 0.5), (900, 0.97, 0.96))]
    bins.append(ReliabilityBin(n=0, score=0, accuracy=0))
    choice.audit = Audit(
        parent=None, parent_flips=None, classes=[], ece_change=0, ece_change_ci95=(0, 0), reliability=bins
    )
    return report


def test_pointing_at_a_variant_tells_its_figures() -> None:
    report = make_report()
    drawn = fronts.by_latency(report)
    assert drawn is not None
    told = tips(drawn)
    assert len(told) == len(report.variants)
    baseline = next(words for words in told if words.startswith("teacher-torch"))
    assert baseline.endswith("baseline")
    assert "drop" not in baseline
    choice = next(words for words in told if words.startswith("resnet14-int8-static (selected)"))
    assert "p50 0.414\N{NO-BREAK SPACE}ms" in choice
    assert choice.endswith("accepted")


def test_the_front_by_size_is_another() -> None:
    drawn = fronts.by_size(make_report())
    assert drawn is not None
    assert "the smallest first: resnet" in drawn


def test_a_tip_stays_within_its_chart() -> None:
    for x in (5.0, 400.0, 850.0):
        tip = ElementTree.fromstring(svg.tip(x, 200, ["a name that is long", "and a figure"], svg.WIDE))
        box = next(part for part in tip.iter() if part.get("class") == "ground")
        left, across = float(box.get("x", "")), float(box.get("width", ""))
        assert left >= 0
        assert left + across <= svg.WIDE


def test_latencies_are_drawn_where_they_were_kept() -> None:
    report = make_report()
    drawn = distributions(report)
    assert drawn is not None
    assert len(tips(drawn)) == len(report.variants)
    assert "p95 5.88\N{NO-BREAK SPACE}ms" in drawn
    for variant in report.variants:
        variant.latency_ms[0].quantiles = None
    assert distributions(report) is None


def test_the_calibration_curve_has_a_point_for_each_share_of_scores_with_items() -> None:
    drawn = calibration(with_audit())
    assert drawn is not None
    assert len(tips(drawn)) == 2
    assert "40\N{NO-BREAK SPACE}test items; too sure by 10.00\N{NO-BREAK SPACE}points" in drawn
    assert calibration(make_report()) is None


def test_flips_are_shown_as_pictures_and_as_texts_and_said_to_be() -> None:
    report = make_report()
    shown = gallery(report)
    assert shown is not None
    assert [len(shown.lost), len(shown.gained)] == [2, 1]
    page = render_html(report)
    assert page.count("<img ") == 1
    assert "Row 19 &lt;b&gt;as it is&lt;/b&gt;" in page
    assert re.search(r"baseline: <span class=\"good\">\w+ 61\N{NO-BREAK SPACE}%</span>", page)
    report.examples = []
    assert gallery(report) is None
    assert "Answers that flipped" not in render_html(report)
