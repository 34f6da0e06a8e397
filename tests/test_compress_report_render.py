"""The rendered report: what a reader must find in it, what must never be in it, and that hostile names stay names."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from report_cases import CASES, HOSTILE
from report_factory import BASELINE, make_report, make_report_with_target

from compress.report.render import render_html, render_markdown, render_model_card
from compress.report.schema import Report

VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


class Page(HTMLParser):
    """The page as a tree of names: fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []  # within the body, in order
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "body" in self.open and data.strip():
            self.texts.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def named(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Report:
    return CASES[request.param]


@pytest.fixture(scope="module")
def html(case: Report) -> str:
    return render_html(case)


@pytest.fixture(scope="module")
def markdown(case: Report) -> str:
    return render_markdown(case)


@pytest.fixture(scope="module")
def card(case: Report) -> str:
    return render_model_card(case)


def test_page_is_well_formed_and_asks_for_nothing(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert not page.named("script", "link", "iframe", "object", "embed", "base", "form")
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes.pop("src").startswith("data:image/")
        assert not {"src", "href", "srcset", "action", "data", "xlink:href"} & set(attributes), tag
        assert not [name for name in attributes if name.startswith("on")], tag
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html


def test_drawings_are_xml_and_say_what_they_show(html: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        pointed = [part for part in root.iter() if part.get("tabindex") == "0"]
        assert root.get("role") == ("group" if pointed else "img")  # parts of an image are hidden from screen readers
        assert all(part.get("role") == "img" and part.get("aria-label") for part in pointed)
        described = [root.find("title"), root.find("desc")]
        assert root.get("aria-labelledby") == " ".join(part.get("id") for part in described)
        assert all(part.text for part in described)
    ids = re.findall(r'\bid="([^"]*)"', "".join(drawings))
    assert len(ids) == len(set(ids))


def test_tables_have_captions_and_scopes_and_even_rows(html: str) -> None:
    page = Page(html)
    assert len(page.named("caption")) == len(page.named("table"))
    assert all(attributes.get("scope") for attributes in page.named("th"))
    assert next(tag for tag, _ in page.tags if tag in ("h1", "h2", "h3")) == "h1"
    for table in re.findall(r"<table.*?</table>", html, flags=re.DOTALL):
        widths = {
            line.count("<t" + "h ") + line.count("<td") for line in re.split(r"<tr", table)[1:] if "colspan" not in line
        }
        assert len(widths) == 1


def test_verdict_comes_first(case: Report, html: str) -> None:
    first = Page(html).texts[:3]
    assert first[1] == ("Accepted" if case.selected else "Not accepted")
    if case.verdict not in HOSTILE:
        assert first[2] == case.verdict


def test_every_variant_is_on_the_page_and_in_the_markdown(case: Report, html: str, markdown: str) -> None:
    text = Page(html).text
    for variant in case.variants:
        if not any(bad in variant.id for bad in HOSTILE[:-1]):
            assert variant.id in text
            assert variant.id in markdown


def test_nothing_is_nan_or_infinite(html: str, markdown: str, card: str) -> None:
    for text in (html, markdown, card):
        assert not re.search(r"\b(nan|inf)\b", text, flags=re.IGNORECASE)
        assert "Undefined" not in text


def test_markdown_tables_are_even_and_carry_no_tag(markdown: str, card: str) -> None:
    for text in (markdown, card.split("\n---\n", 1)[1]):  # the front matter is YAML
        for above, line in pairwise(text.splitlines()):
            if above.startswith("|") and line.startswith("|"):
                assert len(re.findall(r"(?<!\\)\|", above)) == len(re.findall(r"(?<!\\)\|", line)), line
        prose = re.sub(r"(?<!\\)`[^`]*`", "", text)  # a code span may hold anything
        prose = re.sub(r"^</?details>$|^<summary>[A-Za-z ]+</summary>$", "", prose, flags=re.MULTILINE)
        assert not re.search(r"<[a-z/!]", prose)


def test_model_card_has_front_matter(case: Report, card: str) -> None:
    yaml = pytest.importorskip("yaml")
    front, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, re.DOTALL).groups()
    matter = yaml.safe_load(front)
    assert matter["library_name"] == "onnx"
    assert ("model-index" in matter) == (case.selected is not None)
    assert "## Limitations" in body
    assert ("limbeck serve" in body) == (case.selected is not None)


def test_key_figures_are_those_of_the_selected() -> None:
    report = make_report()
    report.variant(BASELINE).size_bytes, report.variant(report.selected).size_bytes = 4_130_000, 440_000
    text = Page(render_html(report)).text
    assert "9.4× smaller 4.13 MB → 440 KB" in text
    assert "5.20 ms → 0.414 ms, bytes to label, batch 1, 1 thread" in text
    low, high = report.variant(report.selected).accuracy_drop_points_ci95
    assert f"95 % interval {low:.2f} to {high:.2f}" in text
    assert "15 / 1 of 2,000 test items" in text


def test_failed_choice_says_what_failed_and_shows_the_nearest() -> None:
    report = make_report(accepted=False, margin=0.3)
    text = Page(render_html(report)).text
    assert f"The choice that failed: {report.choice.id}" in text
    assert "What failed" in text
    assert report.choice.id in text
    assert "nearest to the constraints on test" in text
    assert "✕ fails" in text
    assert "nothing to deploy" in render_model_card(report)


def test_failed_choice_warns_against_the_luckier_one() -> None:
    report = make_report(accepted=False)
    lucky = [variant.id for variant in report.variants if variant.verdict == "accepted" and variant.id != BASELINE]
    assert lucky
    text = render_markdown(report)
    assert lucky[0] in text
    assert "pick a winner" in text


@pytest.mark.parametrize(("upper", "word"), [(1.5, "✓ holds"), (1.5001, "✕ fails")])
def test_margin_is_held_by_the_upper_limit(upper: float, word: str) -> None:
    report = make_report()
    report.variant(report.selected).metric_drop_points_ci95 = (0.0, upper)
    assert f"Drop in accuracy, upper limit {word}" in Page(render_html(report)).text


@pytest.mark.parametrize(("lower", "word"), [(88.5, "✓ holds"), (88.49, "✕ fails")])
def test_a_target_is_held_by_the_lower_limit(lower: float, word: str) -> None:
    report = make_report_with_target(90.0)
    report.variant(report.selected).metric_drop_points_ci95 = (-1.0, 90.0 - lower)
    text = Page(render_html(report)).text
    assert f"Accuracy, lower limit {word} {lower:.2f} % " in text
    assert "at least 88.50 %" in text


def test_with_a_target_every_sentence_about_what_is_judged_says_so() -> None:
    report = make_report_with_target(90.0)
    chosen = report.variant(report.selected)
    page, markdown, card = Page(render_html(report)).text, render_markdown(report), render_model_card(report)
    assert "judged against the recipe’s own target of 90 %, not against the teacher" in page
    assert "How far from the target, and how surely" in page
    assert "Accuracy below the target of 90 %, points; further right is worse" in page
    assert "Below the target, points" in page
    assert f"target 90 %; 95 % interval {100 * chosen.accuracy_ci95[0]:.2f} to" in page
    for teachers in (
        "non-inferiority",
        "What was lost, and how surely",
        "on which the variant and the baseline disagree",
    ):
        assert teachers in Page(render_html(make_report())).text
        assert teachers not in page
    assert "below the target of 90 % accuracy only if the whole 95 % interval" in " ".join(markdown.split())
    for text in (markdown, card):
        assert "| Accuracy, % (95 %) | Drop from baseline, points (95 %) |" in text
    assert "judged against a target of 90 % accuracy, not against its teacher" in " ".join(card.split())
    assert "judged against" not in render_model_card(make_report())


def test_with_a_target_the_paired_evidence_stays() -> None:
    report = make_report_with_target(90.0)
    chosen = report.variant(report.selected)
    text = Page(render_html(report)).text
    low, high = chosen.accuracy_drop_points_ci95
    assert f"Accuracy drop from the teacher {chosen.accuracy_drop_points:.2f} points" in text
    assert f"95 % interval {low:.2f} to {high:.2f}; lost / gained 15 / 1 of 2,000 test items" in text
    assert "McNemar p" in text


def test_a_report_from_before_there_were_targets_reads_as_one_without() -> None:
    report = make_report()
    old = json.loads(report.model_dump_json())
    del old["constraints"]["target_percent"]
    assert Report.model_validate(old) == report


def test_limits_that_are_not_set_are_not_judged() -> None:
    report = make_report()
    report.constraints.max_p95_ms = report.constraints.max_size_mb = None
    assert Page(render_html(report)).text.count("no limit set") == 2


def test_missing_evidence_is_named() -> None:
    assert "cannot say what distillation was worth" in render_html(CASES["no control"])
    assert "no test items" in render_html(CASES["empty class"])
    assert "No latency was measured" in render_html(CASES["no latency"])
    assert "not made from another" in render_html(CASES["no parity"])
    assert "licence of the teacher is not known" in render_model_card(
        make_report().model_copy(update={"teacher_licence": None})
    )


def test_what_was_left_out_of_the_data_is_told_everywhere() -> None:
    report = make_report()
    rendered = (render_html, render_markdown, render_model_card)
    assert not any("Left out" in render(report) for render in rendered)
    report.data.notes = ["left out: images that cannot be read: dog/2.jpg: <b>broken</b>", "left out: empty texts"]
    for render in rendered:
        text = render(report)
        assert "dog/2.jpg" in text
        assert "Left out: empty texts." in text
        assert "<b>broken" not in text


def test_a_model_as_large_as_the_teacher_is_not_called_once_smaller() -> None:
    report = make_report()
    assert report.selected
    report.variant(report.selected).size_bytes = report.variant(BASELINE).size_bytes + 10
    assert "**equal**" in next(line for line in render_markdown(report).splitlines() if line.startswith("| Size"))


def test_students_stand_beside_their_controls() -> None:
    report = make_report()
    student, control = report.variant("resnet8-fp32"), report.variant("resnet8-alone-fp32")
    expected = f"against resnet8-alone-fp32 {student.errors} {control.errors} +{control.errors - student.errors}"
    assert expected in Page(render_html(report)).text
    control.name = "stock"
    assert f"Other controls: {control.id}: {control.errors} errors" in Page(render_html(report)).text


def test_many_classes_show_pairs_and_stay_small() -> None:
    report = make_report(
        labels=[f"class {at}" for at in range(200)], students=("a", "b", "c"), precisions=("fp32", "int8-static"), n=800
    )
    report.variants = report.variants[:12]
    page = render_html(report)
    assert len(page.encode()) < 5_000_000
    assert "most common of" in page
    assert "--heat" not in page[page.index("<body") :]
    assert "class 199" in page


def test_colours_keep_their_contrast() -> None:
    style = render_html(make_report()).split("</style>")[0]
    light, dark = [
        dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    ]
    for theme in (light, dark):
        for ground in ("paper", "raised"):
            for ink in ("ink", "quiet", "accent", "good", "bad"):
                assert contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground)


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2, 1 to 21."""
    low, high = sorted(luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
