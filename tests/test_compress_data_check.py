from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import RECIPE
from typer.testing import CliRunner

from compress.cli import app
from serve.errors import UserError
from train.data import DataConfig, load_data

ROWS = [f"text {at},{'pos' if at % 2 else 'neg'}" for at in range(100)]


def check(target: object) -> tuple[int, str]:
    """Exit code and output; a UserError is code 2, as `main` makes it."""
    ended = CliRunner().invoke(app, ["data", "check", str(target)], env={"COLUMNS": "100"})
    if isinstance(ended.exception, UserError):
        return 2, f"{ended.exception}\nhint: {ended.exception.hint}"
    assert ended.exception is None or isinstance(ended.exception, SystemExit)
    return ended.exit_code, ended.stdout


def written(folder: Path, rows: list[str]) -> Path:
    path = folder / "data.csv"
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    return path


@pytest.mark.parametrize("prefix", ["", "csv:"])
def test_good_data_is_shown_by_split_and_class(tmp_path: Path, prefix: str) -> None:
    code, out = check(f"{prefix}{written(tmp_path, ROWS)}")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert out.startswith(f"csv:{tmp_path / 'data.csv'}: 100 texts, 2 classes\n")
    assert lines[1:6] == [
        ["split", "items", "neg", "pos"],
        ["train", "60", "30", "30"],
        ["calibration", "10", "5", "5"],
        ["validation", "10", "5", "5"],
        ["test", "20", "10", "10"],
    ]
    assert lines[6:] == [["a", "run", "would", "accept", "this", "data"]]


def test_every_problem_is_shown_with_its_rows_and_what_helps(tmp_path: Path) -> None:
    code, out = check(written(tmp_path, [*ROWS, ",pos", "x,", "text 3,pos", *["a,b,c"] * 7, "[bold]x[/] , neg"]))
    assert code == 2
    assert (
        "error  empty texts\n    data.csv:102: the text is empty\n    hint: fill these texts in, or write empty" in out
    )
    assert "error  missing labels\n    data.csv:103: there is no label\n" in out
    assert "error  rows with too few or too many cells: 7\n    data.csv:105: 3 instead of 2 cells\n" in out
    assert "    and 2 more\n    hint: quote texts" in out
    assert "warning  labels with spaces around them\n    data.csv:112: ' neg'\n" in out
    assert "class ' neg' has 1 item, 4 are needed" in out
    assert out.endswith("a run would refuse this data\n")


def test_a_recipe_is_checked_with_its_own_columns_and_repairs(tmp_path: Path) -> None:
    data = written(tmp_path, [*ROWS, ",pos"])
    table = f'[data]\nsource = "csv:{data}"\n[data.repair]\nempty = "drop"\n\n[teacher]'
    recipe = tmp_path / "recipe.toml"
    head, _, rest = RECIPE.partition("[data]")
    recipe.write_text(f'{head}task = "text"\n{table}{rest.partition("[teacher]")[2]}'.replace("cnn-8x16", "textcnn"))
    text = recipe.read_text().replace("options = { hidden = 32 }\n", "").replace("options = { hidden = 16 }\n", "")
    recipe.write_text(text.replace("builtin:cnn-8", "builtin:textcnn").replace(", augment = { shift = 1 }", ""))
    code, out = check(recipe)
    assert code == 0, out
    assert "left out  empty texts\n    data.csv:102: the text is empty\n" in out
    assert "a run would accept this data" in out


def test_a_split_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    rows = [f"text {at},{'pos' if at % 2 else 'neg'}" for at in range(8)]
    code, out = check(written(tmp_path, rows))
    assert code == 0, out  # two of each split: few, but enough
    code, out = check(written(tmp_path, [*rows, *(f"more {at},{label}" for label in "abc" for at in range(3))]))
    assert code == 2
    assert "class 'a' has 3 items, 4 are needed" in out


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        ("nowhere.csv", "nothing at nowhere.csv", "csv:reviews.csv"),
        ("csv:nowhere.csv", "no file or folder at nowhere.csv", "did you mean|known|in |empty"),
        ("nowhere.toml", "no recipe at nowhere.toml", ""),
    ],
)
def test_what_is_not_there_is_told(target: str, message: str, hint: str) -> None:
    code, out = check(target)
    assert code == 2
    assert out.startswith(message)
    assert any(part in out for part in hint.split("|"))


def test_many_classes_fit_into_the_table(tmp_path: Path) -> None:
    rows = [f"text {at},class {at % 200}" for at in range(3000)]
    code, out = check(written(tmp_path, rows))
    assert code == 0
    assert "smallest class" in out
    _, *table = out.splitlines()  # the first line names the file, however long its path
    assert max(map(len, table)) <= 100


def test_unlabelled_items_are_counted_and_those_of_a_judged_split_are_named(tmp_path: Path) -> None:
    written(tmp_path, ROWS)
    held_out = load_data(DataConfig(source=f"csv:{tmp_path / 'data.csv'}"), 0).splits["test"].content[0].decode()
    (tmp_path / "pool.csv").write_text("text\nmore\nstill more\n")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"""name = "t"
task = "text"
[data]
source = "csv:{tmp_path / "data.csv"}"
[data.unlabelled]
source = "csv:{tmp_path / "pool.csv"}"
[teacher]
model = "builtin:textcnn"
[[students]]
name = "small"
model = "builtin:textcnn"
distill = {{}}
[accept]
max_drop_points = 50.0
"""
    )
    code, out = check(recipe)
    assert code == 0, out
    assert ["unlabelled", "2"] in [line.split() for line in out.splitlines()]
    (tmp_path / "pool.csv").write_text(f"text\nmore\n{held_out}\n")
    code, out = check(recipe)
    assert code == 2
    assert (
        "error  unlabelled items that stand in validation or test\n    unlabelled pool.csv:3 is also data.csv:" in out
    )
    assert 'or write duplicates = "drop" under [data.repair]' in out
