from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from tiny_run import content

from compress.recipe import Recipe
from compress.recipe_file import load_recipe, parse_recipe
from compress.variants import baseline, packaged_variants, parents
from serve.errors import UserError

RECIPES = sorted(Path(str(files("compress.recipes"))).glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_that_ship_are_right(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert any(student.role == "control" for student in recipe.students)


def test_there_is_a_recipe_that_needs_no_download() -> None:
    assert "digits" in {path.stem for path in RECIPES}


def test_a_distilled_student_gets_a_control_that_differs_in_nothing_else() -> None:
    small, alone = parse_recipe(content(), "test").students
    assert (alone.name, alone.role, alone.distill) == ("small-alone", "control", None)
    assert alone.model_dump(exclude={"name", "role", "distill"}) == small.model_dump(
        exclude={"name", "role", "distill"}
    )


def test_only_a_student_with_a_teacher_is_shown_texts_that_were_cut() -> None:
    recipe = content()
    recipe["task"] = "text"
    for model in (recipe["teacher"], *recipe["students"]):
        model["model"] = "builtin:textcnn"
        model.pop("options", None)
        model.get("fit", {}).pop("augment", None)
    recipe["students"][0]["fit"]["augment"] = {"span": 0.5, "span_least": 0.3, "splice": 0.2, "delete": 0.1}
    small, alone = parse_recipe(recipe, "test").students
    assert (small.fit.augment.span, small.fit.augment.splice) == (0.5, 0.2)
    assert alone.fit.augment.model_dump() == {**small.fit.augment.without_cuts().model_dump()}
    assert alone.fit.augment.active() == ["delete"]
    recipe["teacher"]["fit"]["augment"] = {"span": 0.5}
    with pytest.raises(UserError, match="only a teacher can say"):
        parse_recipe(recipe, "test")


def test_pixels_of_texts_cannot_be_moved() -> None:
    recipe = content()
    assert recipe["teacher"]["fit"]["augment"]
    recipe["task"] = "text"
    for model in (recipe["teacher"], *recipe["students"]):
        model["model"] = "builtin:textcnn"
        model.pop("options", None)
    with pytest.raises(UserError, match=r"fit\.augment cannot do shift with task = 'text'"):
        parse_recipe(recipe, "test")
    del recipe["teacher"]["fit"]["augment"]
    assert parse_recipe(recipe, "test").task == "text"


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"mask_salient": 0.1}, "guided by a teacher, which the teacher has not"),
        ({"synonym": 0.1}, "those of 'builtin:textcnn' are new"),
        ({"synonym": 0.1, "synonyms": "nowhere.tsv"}, r"no thesaurus at nowhere\.tsv"),
        ({"insert_from": "neighbor"}, "'vocabulary' or 'neighbour'"),
    ],
)
def test_text_augmentation_that_cannot_be_is_refused_at_once(augment: dict[str, object], message: str) -> None:
    recipe = content()
    recipe["task"] = "text"
    for model in (recipe["teacher"], *recipe["students"]):
        model["model"] = "builtin:textcnn"
        del model["options"]
    recipe["teacher"]["fit"]["augment"] = augment
    with pytest.raises(UserError, match=message):
        parse_recipe(recipe, "test")


def test_a_student_cannot_see_images_of_another_size_than_its_teacher() -> None:
    recipe = content()
    recipe["students"][0].setdefault("options", {})["image_size"] = 16
    with pytest.raises(UserError, match=r"'small' has an image_size of its own"):
        parse_recipe(recipe, "test")
    recipe["teacher"].setdefault("options", {})["image_size"] = 16
    assert parse_recipe(recipe, "test").students[0].options["image_size"] == 16


@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        ("builtin:cnn-8", "teacher-layers:2", "'small' is made of its teacher's layers, but 'builtin:cnn-8' is no"),
        ("teacher-layers:2", "builtin:cnn-8", "'teacher-layers:2' is a student of some teacher"),
    ],
)
def test_layers_come_from_a_teacher_that_has_some(teacher: str, student: str, message: str) -> None:
    recipe = content()
    for model, name in ((recipe["teacher"], teacher), (recipe["students"][0], student)):
        model["model"] = name
        model.pop("options", None)
    with pytest.raises(UserError, match=message):
        parse_recipe(recipe, "test")


def test_no_control_for_a_student_without_a_teacher_or_that_wants_none() -> None:
    recipe = content()
    recipe["students"][0]["control"] = False
    recipe["students"].append({"name": "free", "model": "builtin:mlp-8"})
    assert [student.name for student in parse_recipe(recipe, "test").students] == ["small", "free"]


def test_a_resolved_recipe_resolves_to_itself() -> None:
    resolved = parse_recipe(content(), "test")
    assert parse_recipe(resolved.model_dump(mode="json"), "test") == resolved


@pytest.mark.parametrize("missing", ["name", "data", "teacher", "accept"])
def test_no_default_for_what_only_the_user_knows(missing: str) -> None:
    recipe = content()
    del recipe[missing]
    with pytest.raises(UserError, match=f"^test: '{missing}' is missing$"):
        parse_recipe(recipe, "test")


def test_the_first_wrong_key_is_named_by_its_path() -> None:
    recipe = content()
    recipe["students"][0]["fit"]["augment"] = {"shfit": 1}
    with pytest.raises(UserError, match=r"unknown key 'students\.small\.fit\.augment\.shfit'") as refused:
        parse_recipe(recipe, "test")
    assert refused.value.hint == "did you mean 'shift'?"


def test_a_target_is_kept_and_no_target_leaves_no_trace() -> None:
    """Without one, the table is hashed and recorded as before there were targets: old choices still count."""
    recipe = content()
    without = parse_recipe(recipe, "test")
    assert set(without.accept.model_dump(mode="json")) == {
        "metric",
        "max_drop_points",
        "max_p95_ms",
        "max_size_mb",
        "prefer",
    }
    recipe["accept"]["target_percent"] = 87.0
    targeted = parse_recipe(recipe, "test")
    assert targeted.accept.target_percent == 87.0
    assert parse_recipe(targeted.model_dump(mode="json"), "run.json") == targeted != without


def test_a_recipe_cannot_be_changed_after_it_was_checked() -> None:
    recipe = parse_recipe(content(), "test")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 9  # type: ignore[misc]
    assert isinstance(recipe, Recipe)


def test_fp32_comes_first_and_controls_get_nothing_else() -> None:
    recipe = content()
    recipe["quantize"]["precisions"] = ["int8-static", "fp32"]
    variants = packaged_variants(parse_recipe(recipe, "test"))
    assert [variant.id for variant in variants] == [
        "teacher-fp32",
        "teacher-int8-static",
        "small-fp32",
        "small-int8-static",
        "small-alone-fp32",
    ]
    assert {variant.id: parents(variant) for variant in (baseline(), *variants)} == {
        "teacher-torch": [],
        "teacher-fp32": ["teacher-torch"],
        "teacher-int8-static": ["teacher-fp32"],
        "small-fp32": ["teacher-torch"],
        "small-int8-static": ["small-fp32"],
        "small-alone-fp32": [],
    }


@pytest.mark.parametrize(
    ("distill", "fit", "why"),
    [
        ({"method": "dkd"}, {"augment": {"mixup": 0.2}}, "items of fit.augment.mixup or cutmix have more than one"),
        ({"method": "dkd"}, {"augment": {"cutmix": 1.0}}, "items of fit.augment.mixup or cutmix have more than one"),
        ({"method": "dist"}, {"accumulation": 2}, "fit.accumulation = 2 shows it only a part"),
    ],
)
def test_a_method_and_settings_that_exclude_each_other_are_refused_before_the_teacher_is_trained(
    distill: dict[str, object], fit: dict[str, object], why: str
) -> None:
    recipe = content()
    recipe["students"][0] |= {"distill": distill}
    parse_recipe(recipe, "test")
    recipe["students"][0]["fit"] |= fit
    with pytest.raises(UserError, match=why):
        parse_recipe(recipe, "test")


def test_latency_must_be_measured_with_the_threads_that_serve() -> None:
    changed = content() | {"serving": {"threads": 2}}
    with pytest.raises(UserError, match=r"serving.threads = 2, .* but evaluate.threads lacks it"):
        parse_recipe(changed, "tiny")
    changed["evaluate"] = {"threads": [1, 2]}
    serving = parse_recipe(changed, "tiny").serving
    assert serving is not None
    assert serving.threads == 2
