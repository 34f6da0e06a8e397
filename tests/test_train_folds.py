"""[data] fold: a part of everything that is not test takes its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from serve.errors import UserError
from train.data import SPLITS, Data, DataConfig, load_data


def digits(**settings: Any) -> Data:
    sizes = {"calibration": 50, "validation": 100, "test": 0.3}
    return load_data(DataConfig(source="digits", **{**sizes, **settings}), seed=3)


def origins(data: Data, split: str) -> set[str]:
    items = data.splits[split]
    return {items.origins[row] for row in range(len(items))}


def test_every_item_outside_of_test_is_judged_once_and_test_never() -> None:
    whole, folds = digits(), [digits(fold=f"{which}/4") for which in range(1, 5)]
    judged = [origins(fold, "test") for fold in folds]
    assert sum(map(len, judged)) == len(set.union(*judged))
    assert set.union(*judged) == set.union(*(origins(whole, split) for split in SPLITS if split != "test"))
    for fold in folds:
        parts = [origins(fold, split) for split in SPLITS]
        assert sum(map(len, parts)) == len(set.union(*parts))
        assert not origins(whole, "test") & set.union(*parts)


def test_a_fold_keeps_the_shares_of_classes_and_splits() -> None:
    whole, fold = digits(), digits(fold="2/4")
    assert np.ptp(np.bincount(fold.splits["test"].labels)) <= 2 * np.ptp(np.bincount(whole.judged))
    for split in ("calibration", "validation"):
        assert len(fold.splits[split]) == pytest.approx(0.75 * len(whole.splits[split]), abs=1)


def test_a_fold_is_the_same_each_time_and_says_what_it_is() -> None:
    fold = digits(fold="2/4")
    assert fold.fingerprint == digits(fold="2/4").fingerprint
    assert fold.fingerprint != digits(fold="3/4").fingerprint
    assert any("fold 2/4" in note and "test is left out" in note for note in fold.notes)


def test_the_verdict_is_over_all_folds_together() -> None:
    whole, fold = digits(), digits(fold="2/4")
    assert len(fold.judged) == sum(len(whole.splits[split]) for split in SPLITS if split != "test")
    assert len(whole.judged) == len(whole.splits["test"])


@pytest.mark.parametrize("text", ["", "2", "0/5", "6/5", "1/1", "a/b", "1/2/3", "-1/5"])
def test_what_is_no_part_of_a_whole_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="no part of a whole"):
        DataConfig(source="digits", fold=text)


def test_more_folds_than_the_rarest_class_has_items_are_refused_with_how_many_there_can_be() -> None:
    with pytest.raises(UserError, match="500 folds, but the rarest class has only") as refused:
        digits(fold="1/500")
    fewest = int(np.bincount(digits().splits["train"].labels).min())
    assert int(refused.value.hint.split()[2]) >= fewest


@pytest.mark.parametrize("split", ["test", "validation"])
def test_no_unlabelled_item_is_one_that_judges_the_fold_or_has_the_last_word(split: str, tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text,label\n" + "".join(f"text {at},{'ab'[at % 2]}\n" for at in range(80)))
    settings = {"source": f"csv:{tmp_path / 'texts.csv'}", "repair": {"duplicates": "drop"}}
    whole = load_data(DataConfig.model_validate(settings), seed=3).splits[split]
    known = [item.decode() for item in whole.content]
    (tmp_path / "more.csv").write_text("\n".join(["text", "quite another", *known]) + "\n")
    settings["unlabelled"] = {"source": f"csv:{tmp_path / 'more.csv'}"}
    for which in (1, 2):
        fold = load_data(DataConfig.model_validate({**settings, "fold": f"{which}/2"}), seed=3)
        assert fold.unlabelled is not None
        met = {item.decode() for item in fold.unlabelled.items.content}
        assert "quite another" in met
        judged = {item.decode() for name in ("validation", "test") for item in fold.splits[name].content}
        assert not met & (judged | (set(known) if split == "test" else set()))
