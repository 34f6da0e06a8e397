"""`limbeck loadtest RUN --variant all`, with searches that need no server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_factory import make_report
from typer.testing import CliRunner

from compress.cli import app
from compress.loadtest import every
from compress.loadtest.every import accepted, loadtest_all
from compress.loadtest.measure import RESULT, Asked, Say
from compress.report.loads import read_loads
from compress.report.render import render_html
from compress.report.schema import Report
from compress.report.write import read_report
from serve.errors import UserError


def written(folder: Path, report: Report) -> Path:
    (folder / "loadtest").mkdir(exist_ok=True)
    (folder / "report.json").write_text(report.model_dump_json())
    (folder / "loadtest/payloads.json").write_text(json.dumps({"items": [{"row": 7}]}))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose packages were all accepted, the controls too."""
    report = make_report()
    for variant in report.variants:
        variant.verdict = "accepted"
    return written(tmp_path, report)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, float | None]:
    """The rate that each search finds, in place of a server under load; what is written is what a search writes."""
    rates: dict[str, float | None] = {}

    def found(folder: Path, asked: Asked, say: Say) -> bool:
        report, name = read_report(folder), asked.variant or ""
        rate = rates.setdefault(name, 100.0 * (len(rates) + 1))
        content = {
            "variant": name,
            "package_id": report.variant(name).package_id,
            "asked": {"objective": asked.objective},
            "requests_per_second": rate,
            "searches": [{"limited_by": "objective", "probes": [{"rate": 50.0, "p99_ms": 4.0, "outcome": "held"}]}],
            "time_split": {},
        }
        out = folder / (RESULT if name == report.selected else RESULT.with_stem(f"{RESULT.stem}-{name}"))
        out.write_text(json.dumps(content))
        return rate is not None

    monkeypatch.setattr(every, "loadtest", found)
    return rates


def page(folder: Path) -> str:
    report = read_report(folder)
    return render_html(report, read_loads(report, folder))


def test_every_accepted_package_is_tested_and_the_report_draws_the_front(
    run: Path, fake: dict[str, float | None]
) -> None:
    report, said = read_report(run), list[str]()
    assert "--variant all" in page(run)
    assert loadtest_all(run, Asked("p99<20ms"), said.append)
    assert list(fake) == accepted(report)
    assert len(fake) == 5  # of the teacher, and of two students in two precisions
    assert next(iter(fake)) == report.selected
    assert not any("alone" in name for name in fake)
    assert "The most that keep <code>p99&lt;20ms</code>" in page(run)
    assert "--variant all" not in page(run)
    assert all(f"  {name}: {rate:.0f}" in said for name, rate in fake.items() if rate is not None)
    assert said[-1] == f"  {report.selected}: 100"  # the fastest stands first


def test_the_selection_decides_the_exit_code(run: Path, fake: dict[str, float | None]) -> None:
    fake[read_report(run).selected or ""] = None
    done = CliRunner().invoke(app, ["loadtest", str(run), "--variant", "all"])
    assert done.exit_code == 3, done.output
    assert ": none" in done.output


def test_where_the_choice_failed_those_that_would_have_held_are_tested(
    tmp_path: Path, fake: dict[str, float | None]
) -> None:
    report = make_report(accepted=False)
    assert report.selected is None
    assert loadtest_all(written(tmp_path, report), Asked("p99<20ms"), lambda _: None)
    assert report.choice.id not in fake


def test_without_any_accepted_package_there_is_nothing_to_load(tmp_path: Path) -> None:
    report = make_report()
    for variant in report.variants:
        variant.verdict = "rejected"
    with pytest.raises(UserError, match="has no accepted package to load"):
        loadtest_all(written(tmp_path, report), Asked("p99<20ms"))


def test_payloads_that_do_not_say_their_rows_are_refused_before_anything_is_loaded(
    run: Path, fake: dict[str, float | None]
) -> None:
    (run / "loadtest/payloads.json").write_text(json.dumps({"items": [{"input": "x"}]}))
    with pytest.raises(UserError, match="is from an earlier version"):
        loadtest_all(run, Asked("p99<20ms"), lambda _: None)
    assert not fake
