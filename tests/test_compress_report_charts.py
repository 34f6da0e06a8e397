"""Charts and figures: labels that never cover each other, the front, ticks, and numbers as a reader meets them."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.report import svg, wording
from compress.report.charts import Drop, Point, drops, learning, pareto
from compress.report.labels import Box, place
from compress.report.pareto import front
from compress.report.schema import Epoch

MINUS = "\N{MINUS SIGN}"


def points(*figures: tuple[float, float]) -> list[Point]:
    return [Point(f"model {at}", ms, rate, rate - 0.5, rate + 0.5, "student") for at, (ms, rate) in enumerate(figures)]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 600), st.floats(0, 300)), max_size=14))
def test_labels_cover_neither_each_other_nor_what_is_taken(anchors: list[tuple[float, float]]) -> None:
    taken = [Box(x - 7, y - 7, x + 7, y + 7) for x, y in anchors]
    bounds = Box(0, 0, 600, 300)
    texts = [f"variant {at}" for at in range(len(anchors))]
    placed = place(texts, anchors, taken, bounds)
    boxes = [label.box for label in placed]
    for box in boxes:
        assert box.inside(bounds)
        assert not any(box.meets(other) for other in taken)
    assert not any(one.meets(other) for one, other in combinations(boxes, 2))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0, 100)), min_size=1, max_size=12))
def test_front_is_beaten_by_none_and_beats_the_rest(figures: list[tuple[float, float]]) -> None:
    shown = points(*figures)
    best = front(shown)
    for point in shown:
        beaten = any(other.latency_ms <= point.latency_ms and other.accuracy >= point.accuracy for other in best)
        assert beaten
    for one, other in combinations(best, 2):
        assert (one.latency_ms - other.latency_ms) * (one.accuracy - other.accuracy) > 0


@pytest.mark.parametrize("width", [svg.WIDE, svg.NARROW])
def test_every_point_has_its_name_on_the_chart(width: float) -> None:
    few, crowd = points((1, 90), (5, 95)), points(*[(1 + 0.001 * at, 90) for at in range(12)])
    for shown in (few, crowd):
        drawing = pareto(shown, width)
        assert drawing is not None
        ElementTree.fromstring(drawing)
        for point in shown:
            assert f">{point.name}</text>" in drawing
    assert ">12</text>" in pareto(crowd, width)  # too many for names: numbers, and the names below


@given(st.lists(st.tuples(st.floats(0.001, 999), st.floats(0, 1)), min_size=2, max_size=30))
@settings(max_examples=50, deadline=None)
def test_no_figure_stands_on_the_curve_of_a_training(told: list[tuple[float, float]]) -> None:
    epochs = [Epoch(epoch=at + 1, loss=loss, accuracy=right, seconds=1.0) for at, (loss, right) in enumerate(told)]
    drawn = learning("small", epochs, "learning-0")
    assert drawn is not None
    root = ElementTree.fromstring(str(drawn))
    curves = [node.attrib["points"] for node in root.iter() if node.attrib.get("class") == "curve"]
    across = [[float(number) for number in re.findall(r"(-?[\d.]+)[ ,]-?[\d.]+", path)] for path in curves]
    assert [len(places) for places in across] == [len(told)] * 2
    figures = [node for node in root.iter() if re.fullmatch(r"[\d,]+\.\d\d", node.text or "")]
    assert len(figures) == 4
    for node in figures:
        x, wide = float(node.attrib["x"]), svg.text_width(node.text or "")
        left = x - wide if node.attrib["text-anchor"] == "end" else x
        assert left >= -0.1  # coordinates are written with one digit
        assert left + wide <= svg.NARROW + 0.1
        assert not any(left + 0.1 < place < left + wide - 0.1 for places in across for place in places)


def test_charts_leave_out_what_cannot_be_drawn() -> None:
    assert pareto([]) is None
    assert pareto(points((math.nan, 90), (0, 90), (1, math.inf))) is None
    assert drops([], 1.0, "accuracy") is None
    assert drops([Drop("a", math.nan, 0, 1, "student")], 1.0, "accuracy") is None


def test_collapsed_variant_does_not_flatten_the_others() -> None:
    drawing = pareto([*points((1, 90), (2, 91)), Point("broken", 0.5, 10, 9, 11, "student")])
    heights = [float(found) for found in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)" r="5"', drawing)[:2]]
    assert abs(heights[0] - heights[1]) > 8
    assert "↓ 10.0 %" in drawing


def test_interval_past_the_margin_is_drawn_hollow() -> None:
    rows = [Drop("within", 0.2, -0.5, 1.0, "student"), Drop("beyond", 0.2, -0.5, 1.01, "student")]
    drawing = drops(rows, 1.0, "accuracy")
    assert drawing.count("mark student holds") == 2  # the row and the legend
    assert drawing.count("mark student open") == 2
    assert "1 of 2 intervals end within the margin" in drawing


@settings(deadline=None, max_examples=60)
@given(st.floats(1e-3, 1e4), st.floats(1.0, 1e3))
def test_log_ticks_enclose_the_data(low: float, factor: float) -> None:
    ticks = svg.log_ticks(low, low * factor)
    assert len(ticks) >= 2
    assert ticks[0] <= low * (1 + 1e-6)
    assert ticks[-1] >= low * factor * (1 - 1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (wording.significant(0.67349), "0.673"),
        (wording.significant(9.996), "10.0"),
        (wording.significant(1234.5), "1,230"),
        (wording.significant(0), "0"),
        (wording.significant(math.nan), "n/a"),
        (wording.fixed(-0.001), "0.00"),
        (wording.fixed(-1.5), f"{MINUS}1.50"),
        (wording.signed(3, 0), "+3"),
        (wording.percent(0.98354), "98.35\N{NO-BREAK SPACE}%"),
        (wording.size(440_000), "440\N{NO-BREAK SPACE}KB"),
        (wording.size(4_130_000), "4.13\N{NO-BREAK SPACE}MB"),
        (wording.ratio(7.84), "7.8×"),
        (wording.ratio(123.4), "123×"),
        (wording.ratio(None), "n/a"),
        (wording.p_value(0.00001), "<0.0001"),
        (wording.p_value(0.0421), "0.042"),
        (wording.difference(2.4e-6), f"2.4e{MINUS}6"),
        (wording.duration(3725), "1\N{NO-BREAK SPACE}h 02\N{NO-BREAK SPACE}min"),
        (wording.duration(59.7), "1\N{NO-BREAK SPACE}min 00\N{NO-BREAK SPACE}s"),
        (wording.moment("2025-11-14T10:32:07+00:00"), "14 November 2025, 10:32 UTC"),
        (wording.moment("yesterday"), "yesterday"),
        (wording.short("x" * 50, 10), "xxxxxx…xxx"),
        (wording.plural(1, "error"), "1\N{NO-BREAK SPACE}error"),
    ],
)
def test_figures_read_well(text: str, expected: str) -> None:
    assert text == expected
