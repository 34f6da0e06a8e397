"""`limbeck crossvalidate` on the digits: each item is judged once, and the folds count together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_run import RECIPE, Ran, Recorder, made_up_memory
from typer.testing import CliRunner

from compress.cli import app
from compress.cli.shared import NOTHING_MET
from compress.evidence.drops import smallest_margin_points
from compress.measure.predictions import read_labels, read_scores
from compress.recipe import Accept
from compress.report.write import read_report
from compress.series.crossvalidate import FOLDS_JSON, crossvalidate, table
from compress.series.folds import CHOICE, FoldRow, Folds, gather_folds
from compress.stages import measuring
from serve.errors import UserError

ALONE = ("students.small.control=false", 'quantize.precisions=["fp32"]', "evaluate.batch_sizes=[1]")


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Folds]:
    """The tiny recipe's file, and what two folds of it left."""
    place = tmp_path_factory.mktemp("folds")
    recipe = place / "tiny.toml"
    recipe.write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "measure_memory", made_up_memory)
        folder, folds = crossvalidate(recipe, 2, place / "out", ALONE, "limbeck crossvalidate", Recorder())
    return recipe, folder, folds


def answers(folder: Path, variant: str) -> tuple[np.ndarray, np.ndarray]:
    """(predicted, labels) of all folds, int64 [N]."""
    files = [folder / fold / "predictions" / f"{variant}.parquet" for fold in ("fold-1", "fold-2")]
    return (
        np.concatenate([read_scores(file).argmax(axis=1) for file in files]),
        np.concatenate([read_labels(file) for file in files]),
    )


def test_all_items_outside_of_test_count_once(validated: tuple[Path, Path, Folds], tiny: Ran) -> None:
    _, folder, folds = validated
    sizes = {name: split.size for name, split in tiny.report.data.splits.items()}
    assert sum(folds.items) == sum(sizes.values()) - sizes["test"]
    for row in folds.rows[:-1]:
        predicted, labels = answers(folder, row.id)
        assert sum(row.errors) == int((predicted != labels).sum())
        assert row.accuracy == pytest.approx(100 * float((predicted == labels).mean()), abs=1e-3)
    assert Folds.model_validate_json((folder / FOLDS_JSON).read_text()) == folds


def test_the_choice_is_each_folds_own(validated: tuple[Path, Path, Folds]) -> None:
    _, folder, folds = validated
    reports = [read_report(folder / name) for name in ("fold-1", "fold-2")]
    wrong = [report.variant(report.choice.id).errors for report in reports]
    assert folds.choice.errors == tuple(wrong)
    assert sum(row.chosen for row in folds.rows if row.id != CHOICE) == 2


def test_drops_are_paired_over_all_folds(validated: tuple[Path, Path, Folds]) -> None:
    _, folder, folds = validated
    teacher, labels = answers(folder, "teacher-torch")
    student, _ = answers(folder, "small-fp32")
    row = next(row for row in folds.rows if row.id == "small-fp32")
    assert row.drop_points == pytest.approx(
        100 * float(((teacher == labels) * 1.0 - (student == labels)).mean()), abs=1e-3
    )
    base = next(row for row in folds.rows if row.id == "teacher-torch")
    assert base.drop_points is None
    assert base.problems == ()


def test_a_margin_that_all_folds_together_can_show_is_not_too_small_for_one(
    validated: tuple[Path, Path, Folds], tmp_path: Path
) -> None:
    recipe, folder, folds = validated
    margin = 1.1 * smallest_margin_points(sum(folds.items))
    assert margin < smallest_margin_points(min(folds.items))
    console = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "measure_memory", made_up_memory)
        changes = (*ALONE, f"accept.max_drop_points={margin}")
        _, again = crossvalidate(recipe, 2, folder, changes, "limbeck crossvalidate", console)
    assert "teacher" not in console.redone  # nor anything else that the margin does not touch
    assert again.margin_points == margin
    student = next(row for row in again.rows if row.id == "small-fp32")
    assert student.problems


def test_runs_of_other_variants_are_refused(validated: tuple[Path, Path, Folds], tiny: Ran) -> None:
    _, folder, _ = validated
    with pytest.raises(UserError, match="other variants"):
        gather_folds([folder / "fold-1", tiny.folder], Accept(max_drop_points=1))


def test_a_recipe_of_one_fold_and_a_folder_of_a_run_are_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    with pytest.raises(UserError, match=r"is one fold already: data\.fold"):
        crossvalidate(recipe, 2, tmp_path / "out", ['data.fold="1/3"'], "limbeck crossvalidate", Recorder())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match="is a run directory"):
        crossvalidate(recipe, 2, tmp_path / "run", (), "limbeck crossvalidate", Recorder())


def test_a_limit_that_a_folds_choice_breaks_is_told(validated: tuple[Path, Path, Folds]) -> None:
    _, folder, folds = validated
    accept = Accept(max_drop_points=100, max_size_mb=1e-4)
    assert folds.choice.problems == ()
    problems = gather_folds([folder / "fold-1", folder / "fold-2"], accept).choice.problems
    assert [problem.partition(" is ")[0] for problem in problems] == ["in fold-1 the size", "in fold-2 the size"]


def test_what_is_wrong_with_any_fold_is_told_before_the_first_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each text is there twice: of some, the two stand in different splits of a fold."""
    (tmp_path / "texts.csv").write_text(
        "text,label\n" + "".join(f"text {at % 40},{'ab'[at % 2]}\n" for at in range(80))
    )
    content = f"""
name = "twice"
task = "text"
data = {{ source = "csv:{tmp_path / "texts.csv"}" }}
teacher = {{ model = "builtin:textcnn" }}
accept = {{ max_drop_points = 60 }}
"""
    (tmp_path / "twice.toml").write_text(content)

    def run(*_: object) -> list[Path]:
        raise AssertionError("a fold was run")

    monkeypatch.setattr("compress.series.crossvalidate.run_series", run)
    with pytest.raises(UserError, match="is also") as refused:
        crossvalidate(tmp_path / "twice.toml", 2, tmp_path / "out", (), "limbeck crossvalidate", Recorder())
    assert 'duplicates = "drop"' in refused.value.hint


def test_data_that_changed_while_the_folds_were_run_are_told(
    validated: tuple[Path, Path, Folds], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folds of two versions of the data overlap, and an item may be judged twice, or by a model that learned it."""
    recipe, folder, _ = validated
    runs = [folder / "fold-1", folder / "fold-2"]
    monkeypatch.setattr("compress.series.crossvalidate.run_series", lambda *_: runs)
    crossvalidate(recipe, 2, folder, ALONE, "limbeck crossvalidate", Recorder())
    page = (folder / FOLDS_JSON).read_text()
    with pytest.raises(UserError, match=r"the data have changed while the folds were run: .*fold-1"):
        crossvalidate(recipe, 2, folder, (*ALONE, "data.seed=9"), "limbeck crossvalidate", Recorder())
    assert (folder / FOLDS_JSON).read_text() == page


def test_a_promise_that_a_fold_cannot_give_is_refused_before_the_first_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folds differ by an item, and so do the validation splits drawn from the rest: it may be the last that cannot."""

    def run(*_: object) -> list[Path]:
        raise AssertionError("a fold was run")

    (tmp_path / "tiny.toml").write_text(RECIPE)
    monkeypatch.setattr("compress.series.crossvalidate.run_series", run)
    changes = ["abstain.precision=0.9999"]
    with pytest.raises(UserError, match="contradicts a validation split"):
        crossvalidate(tmp_path / "tiny.toml", 3, tmp_path / "out", changes, "limbeck crossvalidate", Recorder())


def test_fewer_than_two_folds_are_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    for folds in (-1, 0, 1):
        with pytest.raises(UserError, match=f"^{folds} folds leave nothing to judge on"):
            crossvalidate(recipe, folds, tmp_path / "out", (), "limbeck crossvalidate", Recorder())


def folds_with(*problems: str) -> Folds:
    """Made-up folds, whose choice has these problems."""
    row = FoldRow(
        id=CHOICE,
        errors=(3, 4),
        accuracy=96.5,
        accuracy_ci95=(92.95, 98.29),
        deviation=0.71,
        macro_f1=0.96,
        drop_points=0.5,
        drop_points_ci95=(-1.0, 2.2),
        problems=problems,
        chosen=0,
    )
    return Folds(
        recipe="tiny",
        folds=2,
        items=(100, 100),
        metric="accuracy",
        margin_points=3.0,
        target_percent=None,
        commits=("a", "a"),
        cpu="a processor",
        rows=(row,),
    )


def test_the_table_ends_with_the_verdict() -> None:
    text = table(folds_with())
    assert f"| {CHOICE} | 7 | 96.50 (92.95 to 98.29) | 0.71 | 0.9600 | +0.50 (-1.00 to +2.20) |  |" in text.splitlines()
    assert text.splitlines()[-1].startswith("Within the margin of 3 points")
    assert table(folds_with("it could be worse")).splitlines()[-1].endswith("never saw: it could be worse.")


@pytest.mark.parametrize(("problems", "code"), [((), 0), (("it could be worse",), NOTHING_MET)])
def test_the_exit_code_says_whether_the_margin_is_kept(
    problems: tuple[str, ...], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    monkeypatch.setattr("compress.series.crossvalidate.crossvalidate", lambda *_: (tmp_path, folds_with(*problems)))
    ended = CliRunner().invoke(app, ["crossvalidate", str(recipe), "--folds", "2"])
    assert ended.exit_code == code
    assert str(tmp_path / FOLDS_JSON) in ended.stdout
