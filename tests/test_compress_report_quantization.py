"""What the report says of how a variant was quantized."""

from __future__ import annotations

from report_factory import make_report

from compress.report.quantization import quantization_notes, tried_tables
from compress.report.render import render_html
from compress.report.schema import Report, Tried

PLAIN = Tried(given_back=[], divergence=4e-3, flips=9, slowdown=1.0, size_bytes=9_000_000, kept=False)
KEPT = Tried(given_back=["node_<b>"], divergence=4e-4, flips=2, slowdown=1.07, size_bytes=9_400_000, kept=True)


def searched() -> Report:
    report = make_report(students=("student",), precisions=("fp32", "int8-static"))
    variant = report.variants[-1].model_copy(update={"tried": [PLAIN, KEPT], "notes": ["weights of 7 bits: no VNNI"]})
    return report.model_copy(update={"variants": [*report.variants[:-1], variant]})


def test_the_trace_of_a_search_is_shown_with_what_was_kept() -> None:
    report = searched()
    (table,) = tried_tables(report)
    assert [row.cells[0].text for row in table.rows] == ["nothing: int8-static", "node_<b>"]
    assert [row.marks for row in table.rows] == [(), ("kept",)]
    assert quantization_notes(report) == [f"{report.variants[-1].id}: weights of 7 bits: no VNNI"]


def test_it_reaches_the_page_as_text() -> None:
    page = render_html(searched())
    assert "weights of 7 bits: no VNNI" in page
    assert "node_&lt;b&gt;" in page
    assert "What the search behind" in page


def test_a_report_without_a_search_says_nothing_of_one() -> None:
    report = make_report()
    assert tried_tables(report) == []
    assert quantization_notes(report) == []
    assert Report.model_validate_json(report.model_dump_json()) == report
