"""`limbeck repeat` on the digits: several seeds over the same test items, and what they say together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_run import RECIPE, Ran, Recorder, content, made_up_memory

from compress.console import Console
from compress.evidence.drops import share_drop
from compress.recipe_file import parse_recipe
from compress.report.schema import Report
from compress.report.write import read_report
from compress.rundir import FOLDS_JSON
from compress.series.gains import difference, gain, scored
from compress.series.repeat import SEEDS_JSON, read_seeds, repeat, table
from compress.series.runs import run_series
from compress.series.seeds import Seeds, gather
from compress.stages import measuring
from serve.errors import UserError

TWIN = """
[[students]]
name = "twin"
model = "builtin:cnn-8"
options = { hidden = 16 }
control = false
fit = { epochs = 2, batch_size = 64, learning_rate = 5e-3 }
distill = { temperature = 1.0, alpha = 0.5 }

[[students]]
name = "shorter"
model = "builtin:cnn-8"
options = { hidden = 16 }
control = false
fit = { epochs = 1, batch_size = 64, learning_rate = 5e-3 }
distill = { temperature = 1.0, alpha = 0.5 }
"""


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Seeds]:
    """The tiny recipe's file, and what two seeds of it left."""
    place = tmp_path_factory.mktemp("repeat")
    recipe = place / "tiny.toml"
    content = RECIPE.replace('["fp32", "fp16", "int8-dynamic", "int8-static"]', '["fp32", "int8-static"]')
    recipe.write_text(content.replace("[quantize]", f'{TWIN}\n[graph]\nrewrites = "none"\n\n[quantize]'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "measure_memory", made_up_memory)
        folder, seeds = repeat(recipe, (3, 4), place / "out", (), "limbeck repeat", Recorder())
    return recipe, folder, seeds


def reports(folder: Path) -> list[Report]:
    return [read_report(folder / name) for name in ("seed-3", "seed-4")]


def test_the_seeds_train_other_models_on_the_same_splits(repeated: tuple[Path, Path, Seeds]) -> None:
    _, folder, seeds = repeated
    one, two = reports(folder)
    assert one.data.fingerprint == two.data.fingerprint  # though digits are split by the recipe's seed
    weights = [(folder / name / "teacher" / "model.safetensors").read_bytes() for name in ("seed-3", "seed-4")]
    assert weights[0] != weights[1]
    assert seeds.seeds == (3, 4)
    assert Seeds.model_validate_json((folder / SEEDS_JSON).read_text()) == seeds


def test_means_and_gains_are_those_of_the_reports(repeated: tuple[Path, Path, Seeds]) -> None:
    _, folder, seeds = repeated
    found = [{variant.id: variant for variant in report.variants} for report in reports(folder)]
    assert [row.id for row in seeds.rows] == list(found[0])
    for row in seeds.rows:
        accuracies = [100 * run[row.id].accuracy for run in found]
        assert row.errors == tuple(run[row.id].errors for run in found)
        assert row.mean == pytest.approx(np.mean(accuracies), abs=1e-3)
        assert row.deviation == pytest.approx(np.std(accuracies, ddof=1), abs=1e-3)
        gain = np.mean([100 * (run[row.id].accuracy - run["teacher-torch"].accuracy) for run in found])
        if row.against_teacher is not None:
            assert row.against_teacher.points == pytest.approx(gain, abs=1e-3)
    by_id = {row.id: row for row in seeds.rows}
    assert by_id["teacher-torch"].against_teacher is None
    student = by_id["small-int8-static"].against_control
    assert student is not None
    assert student.than == "small-alone-fp32"
    assert by_id["small-alone-fp32"].against_control is None
    twin = by_id["twin-fp32"].against_control  # which has none of its own
    assert twin is not None
    assert twin.than == "small-alone-fp32"
    assert by_id["shorter-fp32"].against_control is None  # its own would have had fewer epochs


def test_the_same_command_goes_on_where_it_was_stopped(repeated: tuple[Path, Path, Seeds]) -> None:
    recipe, folder, seeds = repeated
    shutil.rmtree(folder / "seed-4" / "students" / "small")
    console = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "measure_memory", made_up_memory)
        _, again = repeat(recipe, (3, 4), folder, (), "limbeck repeat", console)
    assert console.states["students/small"] == "done"
    assert console.states["teacher"] == "unchanged"
    assert [row.errors for row in again.rows] == [row.errors for row in seeds.rows]


def test_runs_over_other_test_items_are_refused(repeated: tuple[Path, Path, Seeds], tiny: Ran, tmp_path: Path) -> None:
    _, folder, _ = repeated
    with pytest.raises(UserError, match="other variants"):
        gather([folder / "seed-3", tiny.folder])


def test_equal_labels_are_not_taken_for_equal_items(repeated: tuple[Path, Path, Seeds], tmp_path: Path) -> None:
    """Data edited while the seeds were run: each item may be another, and every label the same."""
    _, folder, _ = repeated
    shutil.copytree(folder, tmp_path / "out")
    file = tmp_path / "out" / "seed-4" / "report.json"
    content = json.loads(file.read_text())
    content["data"]["fingerprint"] = "of others"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="seed-4 have other items") as refused:
        gather([tmp_path / "out" / name for name in ("seed-3", "seed-4")])
    assert "start the same `limbeck repeat` again" in refused.value.hint


def test_what_the_seeds_said_together_does_not_outlive_them(
    repeated: tuple[Path, Path, Seeds], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle, the folder held new runs beside the old seeds.json, which says nothing of its age."""
    recipe, folder, _ = repeated
    shutil.copytree(folder, tmp_path / "out")
    page = tmp_path / "out" / SEEDS_JSON

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(UserError):  # where nothing was touched, all stays
        repeat(recipe, (3, 4), tmp_path / "out", ["data.test=0.999"], "limbeck repeat", Recorder())
    assert page.exists()
    monkeypatch.setattr("compress.stages.training.train", stopped)
    with pytest.raises(KeyboardInterrupt):
        repeat(recipe, (3, 4), tmp_path / "out", ["teacher.fit.epochs=1"], "limbeck repeat", Recorder())
    assert not page.exists()


def test_the_interval_covers_the_true_gain_as_often_as_it_says() -> None:
    """Items differ in how hard they are, and each model has its own chance with each: the gain is over new items."""
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        hardness = draw.beta(8, 1, size=(1, 600))
        ours, theirs = (draw.random((3, 600)) < np.clip(hardness + more, 0, 1) for more in (0.01, 0.0))
        found = difference(ours, theirs, "other")
        true = 100 * _mean_gain()
        covered += found.ci95[0] <= true <= found.ci95[1]
    assert 0.92 <= covered / 400 <= 0.98


def test_models_that_hardly_differ_are_not_called_the_same_for_certain() -> None:
    """As in a report: of items without a difference the deviation is 0, and so was the width of the interval."""
    ours = np.ones((3, 200), dtype=bool)
    nowhere = share_drop(ours[0], ours[0])
    assert difference(ours, ours, "other").ci95 == pytest.approx((nowhere.low, nowhere.high), abs=1e-3)
    theirs = ours.copy()
    theirs[0, 0] = False
    low, high = difference(ours, theirs, "other").ci95
    assert low < 0 < 1 < high
    assert difference(ours, ~ours, "other").ci95[1] == 100


@pytest.mark.parametrize("metric", ["macro_f1", "recall:7"])
def test_what_a_recipe_judges_is_what_is_compared(
    repeated: tuple[Path, Path, Seeds], tmp_path: Path, metric: str
) -> None:
    _, folder, seeds = repeated
    shutil.copytree(folder, tmp_path / "out")
    places = [tmp_path / "out" / name for name in ("seed-3", "seed-4")]
    for place in places:
        file = place / "report.json"
        content = json.loads(file.read_text())
        content["constraints"]["metric"] = metric
        file.write_text(json.dumps(content))
    found = gather(places)
    label = found.metric.partition(":")[2]
    assert [row.model_copy(update={"judged": None}) for row in found.rows] == list(seeds.rows)
    for row in found.rows:
        variants = [report.variant(row.id) for report in reports(folder)]
        recalls = [{one.label: one.recall for one in variant.per_class} for variant in variants]
        values = [100 * (recall[label] if label else v.macro_f1) for recall, v in zip(recalls, variants, strict=True)]
        assert row.judged is not None
        assert row.judged.by_seed == pytest.approx(values, abs=1e-3)
        assert (row.judged.against_control is None) == (row.against_control is None)
        if row.judged.against_teacher is not None:
            low, high = row.judged.against_teacher.ci95
            assert low < row.judged.against_teacher.points < high
    text = table(found)
    assert f"| {'macro f1' if label == '' else metric}, mean | of one seed, sd | accuracy, mean |" in text
    assert f"Differences in points of {'macro f1' if label == '' else metric}," in text


def test_the_interval_of_macro_f1_covers_the_true_gain_as_often_as_it_says() -> None:
    """Of three seeds over the same items; the true gain is that of very many items."""
    draw = np.random.default_rng(0)
    classes = ("a", "b", "c")

    def answers(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels = draw.choice(3, n, p=[0.7, 0.2, 0.1])
        luck = draw.random((1, n))  # what is hard for one model is hard for the other
        ours, theirs = ((labels + (luck + draw.normal(0, 0.05, (3, n)) > limit)) % 3 for limit in (0.85, 0.8))
        return ours, theirs, labels

    ours, theirs, labels = answers(400_000)
    true = np.mean(scored("macro_f1", ours, labels, classes)) - np.mean(scored("macro_f1", theirs, labels, classes))
    covered = 0
    for _ in range(100):
        ours, theirs, labels = answers(300)
        low, high = gain("macro_f1", ours, theirs, labels, classes, "other").ci95
        covered += low <= true <= high
    assert 90 <= covered <= 99


def _mean_gain() -> float:
    """Of min(h + 0.01, 1) over h, for h of Beta(8, 1): by a fine sum."""
    h = np.linspace(0, 1, 200_001)
    density = 8 * h**7
    return float(np.trapezoid((np.minimum(h + 0.01, 1) - h) * density, h))


def test_the_table_shows_mean_spread_and_interval(repeated: tuple[Path, Path, Seeds]) -> None:
    _, _, seeds = repeated
    text = table(seeds)
    row = next(row for row in seeds.rows if row.id == "small-fp32")
    assert row.against_control is not None
    line = next(line for line in text.splitlines() if line.startswith("| small-fp32 "))
    assert f"| {row.mean:.2f} | {row.deviation:.2f} |" in line
    verdicts = [report.variant("small-fp32").verdict for report in reports(repeated[1])]
    assert f"| {verdicts.count('accepted')} of 2 |" in line
    assert f"{row.against_control.points:+.2f} ({row.against_control.ci95[0]:+.2f}" in line


def test_runs_of_an_earlier_start_are_named_and_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """fold-3 of three beside two folds looks as if it were one of them."""
    for name in ("fold-1", "fold-2", "fold-3", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    monkeypatch.setattr("compress.series.runs.run", lambda *_: None)
    recipe = parse_recipe(content(), "tiny")
    run_series({"fold-1": recipe, "fold-2": recipe}, tmp_path, FOLDS_JSON, "limbeck", Console())
    assert "also holds fold-3, of an earlier start" in capsys.readouterr().err
    assert (tmp_path / "fold-3" / "run.json").exists()


def test_a_folder_of_runs_in_the_place_of_a_run_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no report in") as refused:
        read_report(tmp_path)
    assert "limbeck run RECIPE" in refused.value.hint
    (tmp_path / "seed-3").mkdir()
    (tmp_path / "seed-3" / "report.json").write_text("{}")
    with pytest.raises(UserError, match="no report in") as refused:
        read_report(tmp_path)
    assert refused.value.hint.endswith(f"such as {tmp_path / 'seed-3'}")


@pytest.mark.parametrize("text", ["", "1", "1,1", "0,x", "0,-1"])
def test_seeds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--seeds"):
        read_seeds(text)


def test_a_run_directory_is_no_place_for_a_repetition(tiny: Ran, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match="is a run directory"):
        repeat(recipe, (0, 1), tmp_path / "run", (), "limbeck repeat", Recorder())
