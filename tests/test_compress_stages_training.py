"""The stages that train, on the digits with models that are too small to be any good."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_run import content, train_content, weights

from compress.recipe_file import parse_recipe
from serve.errors import UserError
from train.data import load_data

FIT = {"epochs": 1, "batch_size": 256, "learning_rate": 5e-3}


def tiny(*students: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A recipe that trains in a second or two."""
    recipe = content()
    recipe["teacher"] = {"model": "builtin:mlp-32", "fit": FIT}
    recipe["students"] = [{"model": "builtin:mlp-16", "fit": FIT, **student} for student in students]
    return {**recipe, **changes}


def images(folder: Path, count: int = 40) -> str:
    """A folder of noise, without labels."""
    folder.mkdir()
    for at in range(count):
        pixels = np.random.default_rng(at).integers(0, 256, (8, 8), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        (folder / f"{at}.png").write_bytes(buffer.getvalue())
    return f"imagefolder:{folder}"


def test_unlabelled_items_train_distilled_students_again_and_nobody_else(tmp_path: Path) -> None:
    recipe = tiny(
        {"name": "small", "distill": {}}, {"name": "plain", "distill": {"items": "labelled"}, "control": False}
    )
    train_content(recipe, tmp_path / "run")
    before = weights(tmp_path / "run")
    source = images(tmp_path / "pool")
    recipe["data"]["unlabelled"] = {"source": source}
    console, fits = train_content(recipe, tmp_path / "run")
    assert console.redone == {"students/small"}
    after = weights(tmp_path / "run")
    assert {path for path in before if before[path] != after[path]} == {"students/small/model.safetensors"}
    assert "labelled and 40 unlabelled items in each epoch" in fits["small"].notes[-1]
    assert not any("unlabelled" in note for note in fits["plain"].notes)
    assert train_content(recipe, tmp_path / "run")[0].redone == set()
    recipe["data"]["unlabelled"]["items"] = 30
    assert train_content(recipe, tmp_path / "run")[0].redone == {"students/small"}


def test_a_student_of_unlabelled_items_alone_needs_no_label_of_train(tmp_path: Path) -> None:
    recipe = tiny({"name": "small", "distill": {"items": "unlabelled", "alpha": 1.0}, "control": False})
    recipe["data"]["unlabelled"] = {"source": images(tmp_path / "pool")}
    _, fits = train_content(recipe, tmp_path / "run")
    assert "0 labelled and 40 unlabelled" in fits["small"].notes[-1]
    assert fits["small"].epochs


def test_a_refit_counts_the_labelled_items_that_came_to_it(tmp_path: Path) -> None:
    recipe = tiny(
        {"name": "small", "fit": {**FIT, "final_refit": True}, "distill": {}, "control": False},
        {
            "name": "bare",
            "fit": {**FIT, "final_refit": True},
            "distill": {"items": "unlabelled", "alpha": 1.0},
            "control": False,
        },
    )
    recipe["data"]["unlabelled"] = {"source": images(tmp_path / "pool")}
    _, fits = train_content(recipe, tmp_path / "run")
    parsed = parse_recipe(recipe, "tiny")
    sizes = {name: len(items) for name, items in load_data(parsed.data, parsed.seed, parsed.task).splits.items()}
    refits = {name: (fit.refit.items, fit.refit.items_before) for name, fit in fits.items() if fit.refit is not None}
    labelled = sizes["train"] + sizes["validation"] + sizes["calibration"]
    assert refits == {"small": (labelled, sizes["train"]), "bare": (0, 0)}
    assert f"{labelled:,} labelled and 40 unlabelled items" in fits["small"].notes[-1]


@pytest.mark.parametrize(
    ("distill", "unlabelled", "message"),
    [
        ({"items": "unlabelled"}, True, "have no labels for the 0.1"),
        ({"items": "unlabelled", "alpha": 1.0}, False, r"there is no \[data\.unlabelled\]"),
        ({"items": "labelled"}, True, "none learns from it"),
        (None, True, "none learns from it"),
        ({"items": "unlabeled", "alpha": 1.0}, True, "did you mean 'unlabelled'"),
    ],
)
def test_unlabelled_items_that_nobody_can_learn_from_are_refused(
    distill: dict[str, Any] | None, unlabelled: bool, message: str
) -> None:
    recipe = tiny({"name": "small", **({"distill": distill} if distill else {})})
    if unlabelled:
        recipe["data"]["unlabelled"] = {"source": "csv:x.csv"}
    with pytest.raises(UserError) as refused:
        parse_recipe(recipe, "tiny")
    assert re.search(message, f"{refused.value} {refused.value.hint}")
