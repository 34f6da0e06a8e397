from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import colored
from typer.testing import CliRunner

from compress.cli import app
from compress.evidence.drops import smallest_margin_points
from compress.init.look import look, script
from compress.init.plan import MINILM, plan
from compress.init.write import summary
from compress.recipe import Recipe
from compress.recipe_file import load_recipe
from serve.errors import UserError
from train.data import Data, load_data

WORDS = ("slow", "quick", "kind", "rude", "cheap", "dear", "warm", "cold")


def sentence(at: int) -> str:
    return f"the {WORDS[at % 8]} waiter number {at} was {WORDS[at % 7]}, café"


def table(rows: int = 120, delimiter: str = ",", header: bool = True, classes: int = 2) -> str:
    lines = ["review,stars"] if header else []
    lines += [f'"{sentence(at)}",{at % classes + 1}' for at in range(rows)]
    return (
        "\n".join(line.replace('",', f'"{delimiter}').replace("review,", f"review{delimiter}") for line in lines) + "\n"
    )


def written(tmp_path: Path, path: Path, *options: str) -> Recipe:
    """What `limbeck init PATH` writes, read as `limbeck run` reads it."""
    out = tmp_path / "recipe.toml"
    done = CliRunner().invoke(
        app, ["init", str(path), "--out", str(out), "--no-estimate", *options], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert f"limbeck run {out}" in done.output
    return load_recipe(out)


def loaded(recipe: Recipe) -> Data:
    return load_data(recipe.data, recipe.seed, recipe.task)


@pytest.mark.parametrize(
    ("content", "encoding", "keys"),
    [
        (table(), "utf-8", {}),
        (table(delimiter=";"), "utf-8", {"delimiter": ";"}),
        (table(), "utf-16", {}),
        (table(), "cp1252", {"encoding": "cp1252"}),
        (table(header=False), "utf-8", {"header": False, "text_column": "1", "label_column": "2"}),
    ],
    ids=["plain", "semicolons", "utf-16", "cp1252", "no-header"],
)
def test_a_strangers_csv_becomes_a_recipe_whose_data_can_be_loaded(
    tmp_path: Path, content: str, encoding: str, keys: dict[str, object]
) -> None:
    file = tmp_path / "my reviews.csv"
    file.write_bytes(content.encode(encoding))
    recipe = written(tmp_path, file)
    assert (recipe.name, recipe.task) == ("my-reviews", "text")
    expected = {"text_column": "review", "label_column": "stars", **keys}
    assert {name: getattr(recipe.data, name) for name in expected} == expected
    data = loaded(recipe)
    assert data.classes == ("1", "2")
    assert sum(len(items) for items in data.splits.values()) == 120
    assert all("café" in items.content[0].decode() for items in data.splits.values())


def test_jsonl_and_parquet_are_looked_into(tmp_path: Path) -> None:
    rows = [{"body": sentence(at), "intent": f"intent {at % 3}", "id": str(at)} for at in range(90)]
    lines, parquet = tmp_path / "a.jsonl", tmp_path / "b.parquet"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    for file in (lines, parquet):
        recipe = written(tmp_path, file, "--force")
        assert (recipe.data.text_column, recipe.data.label_column) == ("body", "intent")
        assert loaded(recipe).classes == ("intent 0", "intent 1", "intent 2")


@pytest.mark.parametrize(("size", "teacher"), [((16, 16), "builtin:wrn-16-2"), ((150, 90), "torchvision:resnet18")])
def test_a_folder_of_images_with_a_stray_file(tmp_path: Path, size: tuple[int, int], teacher: str) -> None:
    folder = tmp_path / "pictures"
    for name, red in (("cats", 200), ("dogs", 20)):
        (folder / name).mkdir(parents=True)
        for at in range(24):
            (folder / name / f"{at}.png").write_bytes(colored(red, at, 0, size))
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    recipe = written(tmp_path, folder)
    assert recipe.teacher.model == teacher
    assert recipe.teacher.options == ({} if size == (16, 16) else {"image_size": 96})
    assert loaded(recipe).classes == ("cats", "dogs")


def test_what_is_wrong_with_the_data_is_left_out_and_told(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text(table() + f'"{sentence(0)}",1\n"  ",1\n"no label here",\n')
    recipe = written(tmp_path, file)
    assert (recipe.data.repair.empty, recipe.data.repair.missing_label) == ("drop", "drop")
    assert recipe.data.repair.rare_classes == "refuse"
    text = (tmp_path / "recipe.toml").read_text()
    assert "data.csv:123" in text
    assert loaded(recipe).notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("review,stars\na,1\nb,2\nc,1\n", "items"),
        (table(classes=1), "every item has the label '1'"),
        ("text\nalone\nagain\n", "one column only"),
        ("id,text\n" + "".join(f"{at},{sentence(at)}\n" for at in range(60)), "no column looks like a label"),
    ],
    ids=["empty", "three-rows", "one-class", "one-column", "no-label"],
)
def test_data_that_no_recipe_could_use_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "data.csv"
    file.write_text(content)
    with pytest.raises(UserError, match=message) as refused:
        look(file)
    assert refused.value.hint


def test_many_classes_get_splits_that_hold_them_all(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text(table(rows=2_000, classes=200))
    data = loaded(written(tmp_path, file))
    assert len(data.classes) == 200
    assert all(len(np.unique(items.labels)) == 200 for name, items in data.splits.items() if name != "calibration")


def test_a_recipe_is_not_overwritten_unasked(tmp_path: Path) -> None:
    file, out = tmp_path / "data.csv", tmp_path / "recipe.toml"
    file.write_text(table())
    out.write_text("precious")
    with pytest.raises(UserError, match="is there already"):
        CliRunner().invoke(app, ["init", str(file), "--out", str(out)], catch_exceptions=False)
    assert out.read_text() == "precious"


def test_a_wanted_teacher_is_taken_and_english_alone_gets_the_english_encoder(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text(table())
    assert plan(look(file), "x", "hf:some/folder").teacher.model == "hf:some/folder"
    file.write_text(
        "text,label\n" + "".join(f"这家餐厅的菜很好吃{at},{at % 2}\n" for at in range(80)), encoding="utf-8"
    )
    findings = look(file)
    assert findings.text is not None
    assert findings.text.mostly == "CJK"
    made = plan(findings, "x").teacher
    assert made.model == "builtin:textcnn" != MINILM
    assert made.why.startswith("100% of the letters are not Latin, and no pretrained model")


def test_letters_without_spaces_between_words_are_counted_one_by_one(tmp_path: Path) -> None:
    """Counted as one word each, long Chinese texts would be cut to the shortest input that a teacher gets."""
    file = tmp_path / "data.csv"
    rows = [f"{'这家餐厅的菜很好吃' * 20}{at},{at % 2}\n" for at in range(80)]
    file.write_text("text,label\n" + "".join(rows), encoding="utf-8")
    findings = look(file)
    assert "180 characters (median), 180 at most, mostly CJK letters" in summary(findings)
    assert plan(findings, "x", "hf:some/folder").teacher.options == {"max_length": 256}


def test_a_column_called_label_is_the_label_even_with_many_classes(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("text,label\n" + "".join(f"text {at} word{at % 200},class {at % 200}\n" for at in range(330)))
    with pytest.raises(UserError, match="330 items have 200 labels"):
        look(file)


def test_small_data_gets_small_batches_and_is_told_what_a_margin_takes(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text(table(rows=120))
    made = plan(look(file), "x", "builtin:textcnn")
    assert made.teacher.fit["batch_size"] == 8
    assert made.margin.value > smallest_margin_points(36)
    assert "with 36 test items" in made.margin.why
    needed = int(made.margin.why.rpartition(" ")[2])
    assert 1.5 * smallest_margin_points(needed) <= 2.0 < 1.5 * smallest_margin_points(needed - 20)


def test_a_wanted_builtin_teacher_gets_no_students_out_of_its_layers(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text(table())
    recipe = written(tmp_path, file, "--teacher", "builtin:textcnn")
    assert recipe.teacher.model == "builtin:textcnn"
    assert {student.model for student in recipe.students} == {"builtin:textcnn"}
    assert recipe.teacher.fit.learning_rate == recipe.students[0].fit.learning_rate


def test_photographs_are_timed_less_often(tmp_path: Path) -> None:
    for name, red in (("cats", 200), ("dogs", 20)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for at in range(24):
            (tmp_path / "photos" / name / f"{at}.png").write_bytes(colored(red, at, 0, (80, 90 + at)))
    recipe = written(tmp_path, tmp_path / "photos")
    assert (recipe.evaluate.batch_sizes, recipe.evaluate.latency_samples) == ((1, 8), 300)


def test_letters_are_told_by_their_writing_system() -> None:
    assert [script(letter) for letter in "aжの汉ك한"] == ["LATIN", "CYRILLIC", "CJK", "CJK", "ARABIC", "HANGUL"]


def test_an_encoder_is_fine_tuned_in_few_epochs_and_timed_less_often(tmp_path: Path) -> None:
    """What a first run takes: 3,000 texts, split, are 3 epochs of 66 updates, and 6 for the student."""
    file = tmp_path / "data.csv"
    epochs, patience = {}, {}
    for rows in (120, 3_000, 20_000):
        file.write_text(table(rows=rows))
        made = plan(look(file), "x", "hf:some/folder")
        epochs[rows] = made.teacher.fit["epochs"], made.students[0].fit["epochs"]
        convolutions = made.students[1].fit
        patience[rows] = convolutions["epochs"], convolutions.get("patience")
        assert made.evaluate == {"batch_sizes": [1, 8], "latency_samples": 300}
    assert epochs == {120: (10, 20), 3_000: (3, 6), 20_000: (3, 4)}
    assert patience == {120: (40, 10), 3_000: (40, 5), 20_000: (14, 5)}
    assert plan(look(file), "x", "builtin:textcnn").evaluate == {}
    file.write_text(table(rows=60_000))  # five epochs will do, of which none would be left to be saved
    fit = plan(look(file), "x", "builtin:textcnn").teacher.fit
    assert (fit["epochs"], "patience" in fit) == (5, False)
