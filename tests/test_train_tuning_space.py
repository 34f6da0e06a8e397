from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from serve.errors import SettingError, UserError
from train.sources import Items
from train.sources.base import Origins
from train.sources.joined import join
from train.tuning.config import TuneConfig
from train.tuning.folds import fold_rows, kept_apart
from train.tuning.space import combinations, drawn, space_of, stored_of

WRONG: dict[str, tuple[Any, str]] = {
    "low above high": ({"low": 2, "high": 1}, "low = 2 must be below high = 1"),
    "low equal to high": ({"low": 1, "high": 1}, "must be below"),
    "log from zero": ({"low": 0.0, "high": 1.0, "log": True}, "log = true needs low above 0"),
    "log with a step": ({"low": 0.1, "high": 1.0, "step": 0.1, "log": True}, "takes no step"),
    "a step that misses": ({"low": 1, "high": 4, "step": 2}, "never reach high = 4"),
    "a step back": ({"low": 1, "high": 4, "step": -1}, "step must be above 0"),
    "an unknown key": ({"lwo": 1, "high": 4}, "unknown key 'lwo'"),
    "no high": ({"low": 1}, "'high' is missing"),
    "a word": ({"low": "1", "high": 4}, "low must be a number"),
    "one value": ([1], "nothing to choose from"),
    "a value twice": ([1, 2, 1], "lists a value twice"),
    "a number": (3, "is 3"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_an_entry_is_said_with_its_name(name: str) -> None:
    given, message = WRONG[name]
    with pytest.raises(SettingError, match=re.escape(message)) as raised:
        space_of({"teacher.fit.clip": given})
    assert 'tune.search."teacher.fit.clip"' in str(raised.value)
    assert raised.value.hint


@pytest.mark.parametrize("given", [{"low": 1e-4, "high": 1e-2}, [1e-4, 1e-2]])
def test_a_name_without_quotes_is_told_to_have_some(given: Any) -> None:
    with pytest.raises(SettingError, match="holds 'fit', as TOML reads a name with dots") as raised:
        space_of({"teacher": {"fit": {"learning_rate": given}}})
    assert raised.value.hint == 'put the name in quotes: "teacher.fit.learning_rate" = ...'


@pytest.mark.parametrize("given", ["leave-one", -1, 2.5, True, [3]])
def test_folds_that_are_none_are_told_what_there_is(given: Any) -> None:
    with pytest.raises(ValueError, match="expected 0, 2 or more, or 'leave-one-out'"):
        TuneConfig(model="teacher", folds=given, search={"a": [1, 2]})


def test_the_end_that_steps_do_reach_is_named() -> None:
    with pytest.raises(SettingError, match="never reach") as raised:
        space_of({"teacher.fit.clip": {"low": 0.5, "high": 2.2, "step": 0.5}})
    assert raised.value.hint == "set high = 2"


def test_a_search_over_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tune\.search is empty"):
        TuneConfig(model="teacher", search={})


def test_a_grid_has_every_combination_once() -> None:
    space = space_of({"a": [1, 2], "b": {"low": 0.1, "high": 0.3, "step": 0.1}, "c": {"low": 3, "high": 4}})
    found = combinations(space)
    assert len({tuple(values.values()) for values in found}) == len(found) == 2 * 3 * 2
    assert {values["c"] for values in found} == {3, 4}
    assert sorted({values["b"] for values in found}) == pytest.approx([0.1, 0.2, 0.3])


def test_values_of_a_grid_are_as_they_were_written_and_none_is_above_the_end() -> None:
    for high, step, expected in ((0.7, 0.2, [0.1, 0.3, 0.5, 0.7]), (1.0, 0.3, [0.1, 0.4, 0.7, 1.0])):
        assert [
            found["a"] for found in combinations(space_of({"a": {"low": 0.1, "high": high, "step": step}}))
        ] == expected
    assert [found["a"] for found in combinations(space_of({"a": {"low": 1, "high": 2, "step": 0.5}}))] == [
        1.0,
        1.5,
        2.0,
    ]


def test_a_grid_over_a_range_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="no end of values"):
        TuneConfig(model="teacher", sampler="grid", search={"a": {"low": 0.1, "high": 0.3}})


def test_lists_and_tables_may_be_chosen_among() -> None:
    values = [{"hidden": 8}, {"hidden": 16, "deep": [1, 2]}, "none", True]
    space = space_of({"teacher.options": values})
    for value in values:
        stored = stored_of(space["teacher.options"], value)
        assert isinstance(stored, str | bool)
        assert drawn({"teacher.options": stored}, space) == {"teacher.options": value}


def test_each_item_is_held_out_once_and_folds_keep_the_shares_of_classes() -> None:
    labels = np.repeat([0, 1, 2], [40, 20, 10])
    rows = fold_rows(labels, 5, seed=1)
    assert sorted(np.concatenate([held for _, held in rows])) == list(range(70))
    for train, held in rows:
        assert not set(train) & set(held)
        assert np.bincount(labels[held]).tolist() == [8, 4, 2]
    assert len(fold_rows(labels, "leave-one-out", seed=1)) == 70


def test_leave_one_out_of_many_is_refused_with_the_number_of_fits() -> None:
    with pytest.raises(UserError, match=r"12,000 models \(600 for each of 20 trials\)"):
        fold_rows(np.zeros(600, dtype=np.int64), "leave-one-out", seed=1, fits=20)


def test_more_folds_than_the_rarest_class_has_items_are_refused() -> None:
    with pytest.raises(UserError, match="rarest class has only 3") as raised:
        fold_rows(np.repeat([0, 1], [40, 3]), 5, seed=1)
    assert "folds = 3" in raised.value.hint


def test_no_fold_trains_on_an_item_that_equals_one_it_holds_out() -> None:
    items = Items([b"same", *(b"%d" % at for at in range(10)), b"same"], np.arange(12) % 2)
    folds = fold_rows(items.labels, "leave-one-out", seed=1)
    apart = kept_apart(folds, items, ("a", "b"), "drop")
    assert [held.tolist() for _, held in apart] == [held.tolist() for _, held in folds]
    assert [len(rest) for rest, _ in apart] == [10, *([11] * 10), 10]
    assert not {0, 11} & {*apart[0][0].tolist(), *apart[11][0].tolist()}
    assert [len(rest) for rest, _ in kept_apart(folds, items, ("a", "b"), "keep")] == [11] * 12
    with pytest.raises(UserError, match=r"item:1 is also item:12: .*\(2 such items in all\)") as raised:
        kept_apart(folds, items, ("a", "b"), "refuse")
    assert 'duplicates = "drop" under [data.repair]' in raised.value.hint


def test_a_fold_whose_class_is_all_copies_is_refused() -> None:
    items = Items([b"same", b"same", b"1", b"2", b"3", b"4"], np.array([0, 0, 1, 1, 1, 1]))
    with pytest.raises(UserError, match="no item of class 'a' to learn"):
        kept_apart(fold_rows(items.labels, 2, seed=1), items, ("a", "b"), "drop")


def test_joined_splits_are_read_as_one() -> None:
    first = Items([b"a", b"b"], np.array([0, 1]), Origins(["a.csv"], np.array([0, 0]), np.array([2, 3])))
    second = Items([b"c"], np.array([2]), Origins(["b.csv"], np.array([0]), np.array([7])))
    both = join([first, second])
    assert [both.content[at] for at in range(3)] == list(both.content) == both.content[0:3] == [b"a", b"b", b"c"]
    assert list(both.take(np.array([2, 0])).content) == [b"c", b"a"]
    assert both.labels.tolist() == [0, 1, 2]
    assert list(both.take(np.array([2, 1])).origins) == ["b.csv:7", "a.csv:3"]
