from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_run import Ran
from typer.testing import CliRunner

from compress.cli import app
from compress.measure.predictions import read_labels, read_scores
from compress.report.comparing import Run, compare, write_comparison
from serve.errors import UserError


@pytest.fixture
def first(tiny: Ran, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.folder, tmp_path / "first"))


@pytest.fixture
def second(tiny: Ran, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.folder, tmp_path / "second"))


def spoil(run: Path, rows: int) -> tuple[int, int]:
    """Make the choice answer the next class for the first `rows` items; items so lost, and all."""
    choice = json.loads((run / "report.json").read_text())["choice"]["id"]
    file = run / "predictions" / f"{choice}.parquet"
    scores, labels = read_scores(file).copy(), read_labels(file)
    before = scores.argmax(axis=1)
    scores[:rows] = np.roll(scores[:rows], 1, axis=1)
    table = pq.read_table(file)
    column = pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel()), scores.shape[1])
    pq.write_table(table.set_column(table.schema.get_field_index("scores"), "scores", column), file)
    after = scores.argmax(axis=1)
    return int(((before == labels) & (after != labels)).sum()), len(labels)


def test_a_run_is_no_different_from_its_copy(first: Path, second: Path) -> None:
    page = compare(Run.read(first), Run.read(second))
    assert page.headline.startswith("No difference in accuracy is shown between")
    assert page.recipe is None
    assert page.variants is not None
    assert {cell.text for row in page.variants.rows for cell in row.cells[3:4]} == {"0 / 0"}
    assert page.notes[1:] == []


def test_what_the_second_lost_is_counted_item_by_item(first: Path, second: Path) -> None:
    lost, n = spoil(second, 60)
    page, file = write_comparison(first, second)
    assert lost > 5
    assert "of second is less accurate than" in page.headline
    assert f"{n} test items" in page.headline.replace("\N{NO-BREAK SPACE}", " ")
    assert file == second / "compare-with-first.html"
    html = file.read_text()
    assert re.search(rf">{lost} / \d+<", html)
    assert "<script" not in html
    back = compare(Run.read(second), Run.read(first))
    assert "of first is more accurate than" in back.headline


def test_the_recipes_are_held_against_each_other(first: Path, second: Path) -> None:
    content = json.loads((second / "run.json").read_text())
    content["recipe"]["students"][0]["fit"]["epochs"] = 9
    content["recipe"]["seed"] = 4
    content["recipe"]["name"] = "another"
    content["hardware"]["cpu"] = "another"
    (second / "run.json").write_text(json.dumps(content))
    report = json.loads((second / "report.json").read_text())
    report["run"]["hardware"]["cpu"] = "another"
    report["constraints"]["max_drop_points"] = 1.0
    (second / "report.json").write_text(json.dumps(report))
    page = compare(Run.read(first), Run.read(second))
    assert page.recipe is not None
    told = {row.cells[0].text: [cell.text for cell in row.cells[1:]] for row in page.recipe.rows}
    assert told == {"seed": ["3", "4"], "students.small.fit.epochs": ["2", "9"]}
    assert any("different processors" in note for note in page.notes)
    assert any("different constraints" in note for note in page.notes)


def test_other_items_or_classes_cannot_be_paired(first: Path, second: Path) -> None:
    report = json.loads((second / "report.json").read_text())
    report["data"]["splits"]["test"]["fingerprint"] = "another"
    (second / "report.json").write_text(json.dumps(report))
    with pytest.raises(UserError, match="different test items"):
        write_comparison(first, second)
    report["data"]["labels"][0] = "zero"
    (second / "report.json").write_text(json.dumps(report))
    with pytest.raises(UserError, match="different classes"):
        write_comparison(first, second)


def test_the_command(first: Path, second: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: not opened.append(url))
    done = CliRunner().invoke(app, ["report", "--compare", str(first), str(second), "--open"])
    assert done.exit_code == 0, done.output
    assert "No difference in accuracy" in done.output
    assert opened == [(second / "compare-with-first.html").as_uri()]
    assert CliRunner().invoke(app, ["report", str(first), "--open"]).exit_code == 0
    assert opened[1:] == [(first / "report.html").as_uri()]


def test_the_command_says_what_it_wants_and_where_the_page_lies(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compress.cli.reporting import report

    with pytest.raises(UserError, match="takes one run, or --compare and two"):
        report(None)
    with pytest.raises(UserError, match="takes one run, or --compare and two"):
        report(first, (first, first))
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    with pytest.raises(UserError, match="no browser could be started") as told:
        report(first, show=True)
    assert str(first / "report.html") in told.value.hint
