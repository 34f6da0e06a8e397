"""tune.html from searches whose answer is known."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from test_train_tuning_study import search_in

from compress.report import svg
from compress.report.render import render_tuning
from compress.report.tunecharts import Axis, coordinates
from compress.report.tuning import IMPORTANCE_TRIALS, importance_of, page_of
from compress.tune.results import Asked
from serve.errors import UserError
from train.tuning.config import TuneConfig
from train.tuning.study import Report, Search

SEARCH = {
    "teacher.fit.clip": {"low": 0.01, "high": 1.0, "log": True},
    "teacher.fit.warmup": {"low": 0.0, "high": 0.5},
    "teacher.model": ["<b>one</b>", "two"],
}


def searched(folder: Path, trials: int, objective: Any) -> tuple[Asked, Search]:
    config = TuneConfig(model="teacher", sampler="random", trials=trials, search=SEARCH)
    search = search_in(folder, search=SEARCH, trials=trials)
    search.run(objective, lambda record, records: None)
    return Asked("<i>x</i>", "", (), {}, config, trials, 5, "the 10 validation items", "a note"), search


def by_clip(values: dict[str, Any], report: Report) -> float:
    return float(values["teacher.fit.clip"])


def test_the_field_that_decides_is_the_most_important_and_the_page_shows_it(tmp_path: Path) -> None:
    asked, search = searched(tmp_path, 40, by_clip)
    records = search.records()
    shares, _ = importance_of(records, search)
    assert next(iter(shares)) == "fit.clip"
    assert shares["fit.clip"] > 0.6
    page = render_tuning(page_of(asked, records, search))
    best = max(record.value for record in records if record.value is not None)
    assert f"accuracy {best:.4f}" in page
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 3 * 2  # each for wide and for narrow pages
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    threads = [ElementTree.fromstring(one) for one in drawings if "coordinates-860" in one]
    assert sum("thread" in (line.get("class") or "") for line in threads[0].iter("polyline")) == 40
    assert "<i>x</i>" not in page
    assert "<b>one</b>" not in page


def test_a_field_of_teacher_and_student_is_shown_twice(tmp_path: Path) -> None:
    both = {f"{model}.fit.clip": {"low": 0.0, "high": 1.0} for model in ("teacher", "students.small")}
    search = search_in(tmp_path, search=both, trials=IMPORTANCE_TRIALS)
    search.run(by_clip, lambda record, records: None)
    config = TuneConfig(model="small", sampler="random", trials=IMPORTANCE_TRIALS, search=both)
    asked = Asked("x", "", (), {}, config, IMPORTANCE_TRIALS, 5, "the 10 validation items", "a note")
    assert set(importance_of(search.records(), search)[0]) == set(both)
    page = render_tuning(page_of(asked, search.records(), search))
    coordinates = [one for one in re.findall(r"<svg.*?</svg>", page, re.DOTALL) if "coordinates-860" in one]
    assert all(field in coordinates[0] for field in both)


def test_of_equal_trials_the_earliest_is_drawn_as_the_best() -> None:
    axis = Axis("a", words=("first", "second", "third"))
    drawn = [
        coordinates([axis], [({"a": word}, 0.5) for word in axis.words[:count]], "accuracy", 860) for count in (2, 3)
    ]
    for one in drawn:
        lines = ElementTree.fromstring(str(one)).iter("polyline")
        best = [line.get("points") or "" for line in lines if line.get("class") == "thread best"]
        assert [points.split(",")[0] for points in best] == ["24.0"]  # the axis begins there


def test_one_complete_trial_is_drawn(tmp_path: Path) -> None:
    asked, search = searched(tmp_path, 1, by_clip)
    assert page_of(asked, search.records(), search).history is not None


def test_with_few_trials_no_importance_is_claimed(tmp_path: Path) -> None:
    asked, search = searched(tmp_path, IMPORTANCE_TRIALS - 1, by_clip)
    page = page_of(asked, search.records(), search)
    assert page.importance is None
    assert "too few" in page.importance_note


def test_a_search_without_a_complete_trial_has_a_page_too(tmp_path: Path) -> None:
    def fails(values: dict[str, Any], report: Report) -> float:
        raise UserError("no good")

    asked, search = searched(tmp_path, 2, fails)
    page = render_tuning(page_of(asked, search.records(), search))
    assert page.count("no good") == 2
    assert "<svg" not in page


def test_the_words_of_an_axis_do_not_stand_on_one_another() -> None:
    words = ("{shift = 1}", "{shift = 2, flip = true}", "{cutmix = 1.0}", "{mixup = 0.2}", "{rotate = 20}", "{}")
    drawing = coordinates([Axis("a", words=words)], [({"a": word}, 0.5) for word in words], "accuracy", svg.NARROW)
    assert drawing is not None
    spans: dict[float, list[tuple[float, float]]] = {}
    for text in ElementTree.fromstring(str(drawing)).iter("text"):
        x, wide = float(text.attrib["x"]), svg.text_width(text.text or "")
        left = x - {"middle": wide / 2, "end": wide}.get(text.get("text-anchor", "start"), 0.0)
        spans.setdefault(float(text.attrib["y"]), []).append((left, left + wide))
    assert sum(map(len, spans.values())) == 2 + len(words) + 2  # both names, the words, the ends of accuracy
    for line in map(sorted, spans.values()):
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(line))
