"""The model card: complete by Hugging Face's sections, and nothing in it that nobody knows."""

from __future__ import annotations

import pytest
from report_factory import BASELINE, make_report

from compress.report.render import render_markdown, render_model_card
from compress.report.schema import Origin, Report

SECTIONS = (
    "Intended use",
    "How to use it",
    "What it is",
    "Training data",
    "Evaluation",
    "Limitations",
    "Preprocessing",
    "What it cost",
    "Licence",
    "Contact",
    "How to make it again",
)


def card(**changes: object) -> str:
    """The card with spaces as a reader sees them."""
    return render_model_card(make_report().model_copy(update=changes)).replace("\u00a0", " ")


def test_every_section_is_there_and_in_order() -> None:
    text = card()
    places = [text.index(f"\n## {name}\n") for name in SECTIONS]
    assert places == sorted(places)


def test_what_only_people_know_is_asked_for_or_told() -> None:
    for name in ("use", "not\\_for", "contact", "licence", "data\\_licence"):
        assert f"not stated (“{name}” under \\[card\\] in the recipe)" in card()
    known = {"use": "Sorting photographs.", "contact": "ml@example.org", "data_licence": "CC BY 4.0"}
    text = card(card=known)
    assert "- Meant for: Sorting photographs." in text
    assert "ml&#64;example.org" in text
    assert "- Data: CC BY 4.0" in text
    assert "“contact” under" not in text


def test_the_choice_stands_beside_its_baseline_with_intervals() -> None:
    report = make_report()
    chosen, base = report.variant(report.selected or ""), report.variant(BASELINE)
    text = card()
    low, high = (100 * end for end in chosen.accuracy_ci95)
    row = f"| Accuracy, % (95 % interval) | {100 * chosen.accuracy:.2f} ({low:.2f} to {high:.2f}) | "
    assert row + f"{100 * base.accuracy:.2f} (" in text
    assert "| Calibration error (ECE, 15 bins), % | 2.10 | 2.10 |" in text
    worst = min(zip(base.per_class, chosen.per_class, strict=True), key=lambda pair: pair[1].recall - pair[0].recall)
    by_class = text[text.index("### By class") :]
    assert by_class[by_class.index("| :---") :].splitlines()[1].startswith(f"| {worst[1].label} |")


def test_where_the_weights_come_from_and_under_which_licence() -> None:
    fresh = {"teacher": Origin(model="builtin:wrn-16-2", fresh=True)}
    text = card(origins=fresh, teacher_licence=None)
    assert "| teacher | builtin:wrn-16-2, from random weights | 20 |" in text
    assert "no licence of others on its weights" in text
    theirs = {"teacher": Origin(model="hf:org/name", fresh=False)}
    assert "licence of the teacher is not known to this run; find out that of hf:org/name" in card(
        origins=theirs, teacher_licence=None
    )
    assert "hf:org/name, its source states apache-2.0" in card(origins=theirs)
    assert "| teacher | not recorded | 20 |" in card()


def test_what_it_cost_is_what_was_measured() -> None:
    text = card()
    assert "controls and measurements included: 35 min 35 s" in text
    assert "Machine: Intel Xeon Platinum 8481C, 2 cores, 23.5 GB" in text
    assert "Energy and emissions: not measured" in text
    report = make_report()
    report.run.stages, report.run.hardware = {}, {}
    bare = render_model_card(report)
    assert "included: not recorded" in bare
    assert "Machine: not recorded" in bare


@pytest.mark.parametrize("limit", [2.0, None])
def test_a_pull_request_is_spared_limits_that_nobody_set(limit: float | None) -> None:
    report = make_report()
    report.constraints.max_p95_ms = limit
    text = render_markdown(report)
    assert ("Latency, 95th percentile" in text) == (limit is not None)
    assert "no limit set" not in text


def test_a_pull_request_says_who_pays_and_what_broke_in_a_word() -> None:
    report = make_report(margin=0.3, accepted=False)
    for variant in report.variants:
        variant.reasons = [reason for reason in variant.reasons if "control" not in reason]
    text = render_markdown(report).replace("\u00a0", " ")
    assert "| ✕ rejected: drop |" in text
    assert "lost most recall of all classes: " in text
    assert text.count("<details>") == text.count("</details>") == text.count("</summary>\n\n") > 0


def test_no_class_that_lost_is_said() -> None:
    report = make_report()
    chosen = report.variant(report.selected or "")
    chosen.per_class = report.variant(BASELINE).per_class
    assert "No class lost recall against the baseline." in render_markdown(report)


def test_a_report_from_before_there_were_origins_is_read() -> None:
    old = make_report().model_dump(mode="json", by_alias=True)
    del old["origins"], old["card"]
    assert Report.model_validate(old) == make_report()


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("limbeck run cifar10 --out 'my runs/a'", "'my runs/a'"),
        ("limbeck run cifar10", "runs/cifar10-resnet20"),
        ("limbeck run 'unclosed", "runs/cifar10-resnet20"),
        (None, "runs/cifar10-resnet20"),
    ],
)
def test_the_run_is_served_from_where_it_was_made(command: str | None, folder: str) -> None:
    report = make_report()
    report.run.command = command
    assert f"\nlimbeck serve {folder}\n" in render_model_card(report)
