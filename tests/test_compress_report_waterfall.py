from __future__ import annotations

import re

from report_factory import make_report

from compress.report import facts, svg
from compress.report.schema import Report
from compress.report.waterfall import path, waterfall


def with_lineage() -> Report:
    """The choice resnet14-int8-static was made from resnet14-fp32, and that was distilled from the baseline."""
    report = make_report()
    choice = facts.chosen(report)
    assert choice is not None
    assert choice.id == "resnet14-int8-static"
    choice.parents = ["resnet14-fp32"]
    return report


def test_the_path_leads_from_the_baseline_over_every_parent() -> None:
    steps = path(with_lineage())
    assert [step.variant.id for step in steps] == ["teacher-torch", "resnet14-fp32", "resnet14-int8-static"]
    assert [step.done for step in steps] == [
        "as users run it",
        "distilled, exported as fp32",
        "quantized to int8-static",
    ]


def test_a_choice_without_parents_stands_beside_the_baseline() -> None:
    report = make_report()
    report.variant("resnet14-int8-static").parents = []
    assert [step.variant.id for step in path(report)] == ["teacher-torch", "resnet14-int8-static"]


def test_parents_in_a_circle_end() -> None:
    report = with_lineage()
    report.variant("resnet14-fp32").parents = ["resnet14-int8-static"]
    assert [step.variant.id for step in path(report)] == ["teacher-torch", "resnet14-fp32", "resnet14-int8-static"]


def test_each_step_says_what_it_cost_and_gained() -> None:
    report = with_lineage()
    drawn = waterfall(report)
    assert drawn is not None
    words = " ".join(re.findall(r"<text[^>]*>(.*?)</text>", drawn))
    before, after = report.variant("resnet14-fp32"), report.variant("resnet14-int8-static")
    change = 100 * (after.accuracy - before.accuracy)
    assert f"({change:+.2f})".replace("-", "\N{MINUS SIGN}") in words
    assert "5.20\N{NO-BREAK SPACE}ms" in words
    assert "1.12\N{NO-BREAK SPACE}ms (4.7× less)" in words
    assert "0.414\N{NO-BREAK SPACE}ms (2.7× less)" in words


def test_a_step_to_the_worse_is_drawn_as_one() -> None:
    report = with_lineage()
    slower = report.variant("resnet14-int8-static")
    slower.latency_ms[0].total_p50 = 1.674
    drawn = waterfall(report)
    assert drawn is not None
    assert "(1.5× more)" in drawn
    assert "bar worse" in drawn


def test_without_a_choice_there_is_nothing_to_draw() -> None:
    report = make_report(accepted=False)
    report.choice.id = "nobody"
    assert waterfall(report) is None
    assert waterfall(make_report(), svg.NARROW) is not None
