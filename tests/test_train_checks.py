"""What is wrong with data beyond single rows, class sets, rare classes and leaks: refused, or repaired and split."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from serve.errors import UserError
from train.data import SPLITS, Data, DataConfig, Examined, Repair, examine, load_data

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def rows(label: str, count: int, start: int = 0) -> list[str]:
    return [f"{label} text {at},{label}" for at in range(start, start + count)]


def table(folder: Path, **files: list[str]) -> str:
    """Writes folder/NAME.csv for each; one alone is a file to be split."""
    for name, lines in files.items():
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return f"csv:{folder}" if "train" in files else f"csv:{folder / next(iter(files))}.csv"


def load(source: str, **options: object) -> Data:
    return load_data(DataConfig.model_validate({"source": source, **options}), seed=0)


def look(source: str, **options: object) -> Examined:
    return examine(DataConfig.model_validate({"source": source, **options}), seed=0)


def found(examined: Examined) -> dict[str, tuple[str, list[str]]]:
    return {problem.kind.title: (verdict, problem.examples) for verdict, problem in examined.problems}


def refused(source: str, place: str, hint: str, **options: object) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(place)}") as error:
        load(source, **options)
    assert hint in error.value.hint
    assert "limbeck data check" in error.value.hint


def test_one_error_names_the_first_problem_how_many_and_what_helps(tmp_path: Path) -> None:
    source = table(tmp_path, data=[*rows("a", 20), ",a", "no label,", *rows("b", 20), ",b"])
    refused(source, "data.csv:22: the text is empty (3 problems in all)", 'empty = "drop" under [data.repair]')
    refused(source, "data.csv:23: there is no label", 'missing_label = "drop"', repair={"empty": "drop"})
    data = load(source, repair={"empty": "drop", "missing_label": "drop"})
    assert sum(map(len, data.splits.values())) == 40
    assert data.notes == (
        "left out: empty texts: data.csv:22: the text is empty and 1 more",
        "left out: missing labels: data.csv:23: there is no label",
    )


def test_rows_that_cannot_be_read_are_dropped_only_on_request(tmp_path: Path) -> None:
    source = table(tmp_path, data=[*rows("a", 20), "one,two,three", *rows("b", 20)])
    refused(source, "data.csv:22: 3 instead of 2 cells", 'unreadable = "drop"')
    assert sum(map(len, load(source, repair={"unreadable": "drop"}).splits.values())) == 40


def test_a_class_with_a_single_item(tmp_path: Path) -> None:
    source = table(tmp_path, data=[*rows("a", 40), *rows("lonely", 1), *rows("b", 40)])
    refused(source, "data.csv:42: class 'lonely' has 1 item, 4 are needed", 'rare_classes = "drop"')
    data = load(source, repair={"rare_classes": "drop"})
    assert data.classes == ("a", "b")
    assert sum(map(len, data.splits.values())) == 80
    for items in data.splits.values():
        assert all(items.content[at].decode()[0] == data.classes[items.labels[at]] for at in range(len(items)))


def test_own_splits_need_fewer_items_of_a_class(tmp_path: Path) -> None:
    parts = {name: [*rows("a", 30, at), *rows("b", 30, at)] for name, at in (("validation", 100), ("test", 200))}
    source = table(tmp_path, train=[*rows("a", 30), *rows("b", 30), *rows("c", 2)], **parts)
    data = load(source)
    assert [np.bincount(data.splits[name].labels, minlength=3)[2] for name in SPLITS] == [1, 1, 0, 0]
    verdict, examples = found(look(source))["classes that a split lacks"]
    assert verdict == "warning"
    assert examples == ["train.csv:62: class 'c' is not in validation", "train.csv:62: class 'c' is not in test"]
    assert found(look(source))["classes that are nearly empty"] == ("warning", ["train.csv:62: class 'c' has 2 items"])


def test_a_class_that_train_lacks_is_refused(tmp_path: Path) -> None:
    source = table(tmp_path, train=[*rows("a", 30), *rows("b", 30)], test=[*rows("a", 5, 90), *rows("x", 3), "z,b"])
    refused(source, "test.csv:7: class 'x' is in test, 3 items, but not in train", "give train items of these classes")


def test_too_few_items_one_class_and_labels_that_are_no_classes(tmp_path: Path) -> None:
    refused(table(tmp_path, data=["x,a", "y,b", "z,a"]), "data.csv:2: there are 3 items to train on in all", "dozens")
    refused(table(tmp_path, data=[]), "train: there are 0 items", "dozens")
    refused(table(tmp_path, data=rows("a", 50)), "data.csv:2: every item has the label 'a'", "label_column")
    unique = [f"text {at},label {at}" for at in range(50)]
    refused(table(tmp_path, data=unique), "data.csv:2: 50 items have 50 labels, such as 'label 0'", "label_column")


@pytest.mark.parametrize("count", [4, 5, 15])
def test_200_classes_are_each_in_every_split(tmp_path: Path, count: int) -> None:
    lines = [line for label in range(200) for line in rows(f"class {label}", count)]
    data = load(table(tmp_path, data=lines))
    assert len(data.classes) == 200
    for name in SPLITS:
        assert np.bincount(data.splits[name].labels, minlength=200).min() >= 1, name
    assert sum(map(len, data.splits.values())) == 200 * count


@pytest.mark.parametrize("rare", [4, 5, 7])
def test_a_rare_class_among_many_items_is_in_every_split(tmp_path: Path, rare: int) -> None:
    data = load(table(tmp_path, data=[*rows("a", 1000), *rows("r", rare), *rows("b", 1000)]), calibration=600)
    assert all((items.labels == data.classes.index("r")).any() for items in data.splits.values())
    origins = [origin for items in data.splits.values() for origin in items.origins]
    assert len(set(origins)) == 2000 + rare


def leaking(folder: Path) -> str:
    return table(
        folder,
        train=[*rows("a", 30), *rows("b", 30), "shown,a"],
        validation=[*rows("a", 10, 50), *rows("b", 10, 50), "both,a"],
        test=[*rows("a", 10, 70), *rows("b", 10, 70), "shown,b", "both,a", "twice,b", "twice,b"],
    )


def test_leaks_are_refused_by_place_and_dropped_from_the_earlier_split(tmp_path: Path) -> None:
    source = leaking(tmp_path)
    refused(source, "train.csv:62 (train) is also test.csv:22 (test) (2 problems in all)", 'duplicates = "drop"')
    problems = found(look(source))
    assert problems["items in more than one split"][1][1] == "validation.csv:22 (validation) is also test.csv:23 (test)"
    assert problems["equal items with different labels"] == (
        "warning",
        ["train.csv:62 is 'a', test.csv:22 is 'b'"],
    )
    assert problems["items more than once in a split"] == ("note", ["test.csv:25 repeats test.csv:24"])
    data = load(source, repair={"duplicates": "drop"})
    content = {name: list(items.content) for name, items in data.splits.items()}
    assert b"shown" not in content["train"]
    assert b"both" not in content["validation"]
    assert content["test"][-4:] == [b"shown", b"both", b"twice", b"twice"]
    assert not any(set(content[one]) & set(content[other]) for one in SPLITS for other in SPLITS if one < other)
    kept = load(source, repair={"duplicates": "keep"})
    assert sum(map(len, kept.splits.values())) == sum(map(len, content.values())) + 2


def test_what_was_dropped_changes_the_fingerprints_of_its_split_alone(tmp_path: Path) -> None:
    source = leaking(tmp_path)
    dropped, kept = (load(source, repair={"duplicates": how}) for how in ("drop", "keep"))
    same = {name: dropped.fingerprints[name] == kept.fingerprints[name] for name in SPLITS}
    assert (same["train"], same["validation"], same["test"]) == (False, False, True)


@pytest.mark.parametrize("copy", ["train", "validation"])
def test_a_split_of_which_duplicates_leave_nothing_is_refused(tmp_path: Path, copy: str) -> None:
    test = [*rows("a", 20, 100), *rows("b", 20, 100)]
    own = {"train": [*rows("a", 30), *rows("b", 30)], "validation": [*rows("a", 9, 50), *rows("b", 9, 50)]}
    source = table(
        tmp_path, **{**own, copy: test[:20] if copy == "validation" else [*own["train"][:30], *test]}, test=test
    )
    with pytest.raises(UserError, match=f"is left in {copy}") as refused:
        load(source, repair={"duplicates": "drop"})
    assert "copies of each other" in refused.value.hint


def test_a_recipe_for_images_over_texts_is_refused(tmp_path: Path) -> None:
    source = table(tmp_path, data=[*rows("a", 20), *rows("b", 20)])
    with pytest.raises(UserError, match="holds texts, but the recipe's task is 'image'") as error:
        load_data(DataConfig(source=source), 0, "image")
    assert 'task = "text"' in error.value.hint
    load_data(DataConfig(source=source), 0, "text")


def test_given_classes_that_nothing_has_are_rare(tmp_path: Path) -> None:
    source = table(tmp_path, data=[*rows("a", 20), *rows("b", 20)])
    refused(source, "train: class 'c' has 0 items", 'rare_classes = "drop"', classes=["c", "b", "a"])
    assert load(source, classes=["c", "b", "a"], repair={"rare_classes": "drop"}).classes == ("b", "a")


def test_an_unknown_way_to_repair_is_refused() -> None:
    with pytest.raises(ValueError, match="'refuse' or 'drop'"):
        Repair.model_validate({"empty": "keep"})
