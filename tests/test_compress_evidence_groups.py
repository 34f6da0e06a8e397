from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_run import content

from compress.evidence.drops import smallest_margin_points
from compress.evidence.groups import LEAST, group_changes, group_problems
from compress.evidence.noninferiority import LEVEL, paired_p
from compress.recipe_file import parse_recipe
from serve.errors import UserError
from train.data import DataConfig, load_data

LABELS = np.zeros(1000, dtype=np.int64)
GROUPS = ["north"] * 600 + ["south"] * 380 + ["islands"] * 20
BASE = LABELS.copy()
OURS = LABELS.copy()
OURS[600:630] = 1  # 30 of the south are lost
OURS[990:995] = 1  # and 5 of the islands


def test_the_worst_group_is_first_and_the_small_one_is_not_judged() -> None:
    changes = group_changes(OURS, BASE, LABELS, GROUPS, margin=None)
    assert [(one.group, one.n, one.lost, one.judged) for one in changes] == [
        ("south", 380, 30, True),
        ("north", 600, 0, True),
        ("islands", 20, 5, False),
    ]
    assert changes[0].drop_points == pytest.approx(100 * 30 / 380)
    assert changes[0].drop_points_ci95[0] > 5
    assert (changes[0].baseline_accuracy, changes[0].accuracy) == (1.0, 350 / 380)
    assert group_problems(changes, None) == []


def test_a_margin_is_kept_by_every_judged_group_or_broken_by_name() -> None:
    changes = group_changes(OURS, BASE, LABELS, GROUPS, margin=2.0)
    (problem,) = group_problems(changes, 2.0)
    assert "the drop in group 'south' could be up to" in problem
    assert group_problems(group_changes(OURS, BASE, LABELS, GROUPS, margin=12.0), 12.0) == []
    # the north has lost nothing, but 600 items cannot show a margin of half a point
    assert smallest_margin_points(600) > 0.5
    assert not any(one.judged for one in group_changes(OURS, BASE, LABELS, GROUPS, margin=0.5))
    assert LEAST == 30


def rows() -> list[dict[str, str]]:
    return [
        {
            "text": f"text\nnumber {at}" if at % 7 == 0 else f"text number {at}",
            "label": "ab"[at % 2],
            "region": f"r{at % 3}" if at % 5 else "",
        }
        for at in range(200)
    ]


def written(kind: str, folder: Path) -> Path:
    file = folder / f"all.{kind}"
    if kind == "csv":
        lines = [f'"{row["text"]}",{row["label"]},{row["region"]}' for row in rows()]
        file.write_text("\n".join(["text,label,region", *lines]) + "\n")
    elif kind == "jsonl":
        file.write_text("\n\n".join(json.dumps(row) for row in rows()) + "\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows()), file)
    return file


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_groups_are_those_of_the_test_items_own_rows(kind: str, tmp_path: Path) -> None:
    """Also where texts go over several lines, and lines between them are blank."""
    config = DataConfig(source=f"{kind}:{written(kind, tmp_path)}", group="region")
    data = load_data(config, seed=0, task="text")
    test = data.splits["test"]
    expected = {row["text"]: row["region"] or "(none)" for row in rows()}
    assert data.test_groups == tuple(expected[item.decode()] for item in test.content)
    assert len(set(data.test_groups)) == 4
    assert data.fingerprint == load_data(config.model_copy(update={"group": None}), seed=0, task="text").fingerprint
    with pytest.raises(UserError, match="no column 'reginn'") as caught:
        load_data(config.model_copy(update={"group": "reginn"}), seed=0, task="text")
    assert "did you mean 'region'" in caught.value.hint


def test_groups_need_columns_and_a_margin_needs_groups() -> None:
    with pytest.raises(UserError, match="'digits' has no columns"):
        load_data(DataConfig(source="digits", group="region"), seed=0)
    recipe = content()
    recipe["accept"]["max_group_drop_points"] = 5.0
    with pytest.raises(UserError, match=r"max_group_drop_points needs groups"):
        parse_recipe(recipe, "recipe")
    recipe["data"]["group"] = "region"
    assert parse_recipe(recipe, "recipe").accept.max_group_drop_points == 5.0
    assert "max_group_drop_points" not in parse_recipe(content(), "recipe").accept.model_dump()


def test_a_groups_limit_must_pass_the_exact_test_too() -> None:
    """Margins just above the limit, which it would pass alone."""
    theirs, refused = np.zeros(100, np.int64), []
    for lost in range(6, 14):
        ours = (np.arange(100) < lost).astype(np.int64)
        limit = group_changes(ours, theirs, theirs, ["a"] * 100, None)[0].drop_points_ci95[1]
        margin = limit + 1e-6
        problems = group_problems(group_changes(ours, theirs, theirs, ["a"] * 100, margin), margin)
        assert (problems == []) == (paired_p(lost, 0, 100, margin / 100) <= LEVEL)
        refused += problems
    assert refused
    assert all("exact test does not follow" in problem for problem in refused)
