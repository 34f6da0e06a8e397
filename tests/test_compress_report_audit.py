"""The compression audit as a reader meets it: page, Markdown, model card."""

from __future__ import annotations

import re

import pytest
from report_factory import make_report

from compress.report.render import render_html, render_markdown, render_model_card
from compress.report.schema import (
    Abstention,
    Audit,
    ClassChange,
    Exemplar,
    Flips,
    GroupChange,
    ReliabilityBin,
    Report,
)


def change(label: str, n: int, lost: int, p: float) -> ClassChange:
    points = 100 * lost / n
    return ClassChange(
        label=label, n=n, lost=lost, gained=0, drop_points=points, drop_points_ci95=(points - 4, points + 5), p=p
    )


def group(name: str, n: int, drop: float, judged: bool) -> GroupChange:
    return GroupChange(
        group=name,
        n=n,
        accuracy=0.9 - drop / 100,
        baseline_accuracy=0.9,
        lost=3,
        gained=0,
        drop_points=drop,
        drop_points_ci95=(drop - 2, drop + 3),
        judged=judged,
    )


@pytest.fixture
def report() -> Report:
    """A made-up report whose variants were audited, and promise something."""
    report = make_report()
    for variant in report.variants[1:]:
        variant.audit = Audit(
            parent="teacher-torch",
            parent_flips=Flips(lost=41, gained=17),
            classes=[change("cat", 200, 30, 0.0004), change("dog", 210, 2, 1.0)],
            ece_change=0.031,
            ece_change_ci95=(0.02, 0.04),
            reliability=[ReliabilityBin(n=100, score=0.72, accuracy=0.55), ReliabilityBin(n=2, score=0.4, accuracy=0)],
            groups=[group("<b>night</b>", 300, 4.5, True), group("fog", 12, 25.0, False)],
        )
        variant.temperature, variant.ece_uncalibrated = 1.31, 0.09
        variant.abstention = Abstention(
            precision=0.95,
            confidence=0.95,
            below=0.8125,
            n=500,
            answered=400,
            wrong=9,
            test_answered=1600,
            test_wrong=48,
            coverage=0.8,
            coverage_ci95=(0.78, 0.82),
            test_precision=0.97,
            test_precision_ci95=(0.96, 0.98),
        )
    report.constraints.max_group_drop_points = 6.0
    report.exemplars = [
        Exemplar(item=7, origin="test.csv:9", label="cat", baseline="cat", variants="dog", flipped=5, of=5)
    ]
    return report


def plain(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_the_page_says_who_pays_and_what_can_be_relied_on(report: Report) -> None:
    html = render_html(report)
    text = plain(html[html.index('id="audit"') : html.index('id="latency"')])
    for said in (
        "41 / 17 teacher-torch",
        "15.00 cat, p 0.00040",
        "+3.10 2.00 to 4.00",
        "1.31 9.00 % at 1",
        "95 % of the answers given are right",
        "0.8125 400 of 500 9 80.00",
        "over the margin",
        "too small to judge",
        "test.csv:9",
        "72.00 55.00 +17.00 100",
    ):
        assert said.replace(" ", "") in text.replace(" ", "").replace("\N{NO-BREAK SPACE}", ""), said
    assert "<b>night" not in html
    assert "&lt;b&gt;night" in html


def test_markdown_and_card_carry_the_audit_too(report: Report) -> None:
    markdown, card = render_markdown(report), render_model_card(report)
    for heading in ("What the accuracy hides", "### Group by group", "What may be relied on"):
        assert heading in markdown
    for heading in ("### By group", "### Can its scores be believed?", "### What may be relied on"):
        assert heading in card
    assert "says “abstained”" in card
    assert "The group that loses most is" in card


def test_a_report_without_audits_shows_none(report: Report) -> None:
    before = make_report()
    assert 'id="audit"' not in render_html(before)
    assert "What the accuracy hides" not in render_markdown(before)
    for variant in report.variants[1:]:
        assert variant.abstention is not None
        variant.abstention.below = variant.abstention.coverage = None
    assert "no score promises it" in render_html(report)
