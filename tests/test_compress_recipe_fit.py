"""[*.fit] of a recipe: settings that contradict each other are refused with a sentence that says which."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from compress.recipe_file import parse_recipe
from serve.errors import UserError

RECIPE = """
name = "tiny"
data = { source = "digits" }
accept = { max_drop_points = 5.0 }
teacher = { model = "builtin:cnn-8" }
"""
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown optimizer": ({"optimizer": "adamv"}, "teacher.fit.optimizer: .*got 'adamv'", "did you mean 'adam"),
    "an unknown schedule": ({"schedule": "plato"}, "teacher.fit.schedule: .*got 'plato'", "did you mean 'plateau'"),
    "an unknown setting": ({"lr": 1}, "unknown key 'teacher.fit.lr'", "names are known"),
    "steps of another schedule": ({"step_every": 3}, "step_every is for schedule = 'step' or 'plateau'", ""),
    "a power of another schedule": (
        {"power": 1.0, "schedule": "linear"},
        "power is for schedule = 'polynomial'",
        "leave out power, or set schedule",
    ),
    "gamma of another loss": ({"focal_gamma": 1.0}, "focal_gamma is for loss = 'focal', but loss is 'cross-entr", ""),
    "a smoothed squared error": ({"loss": "mse", "label_smoothing": 0.1}, "label_smoothing is for loss = 'cross-", ""),
    "a threshold of nothing": ({"threshold": 0.1}, "threshold says which gain counts", "set one of them"),
    "a long mistake": (
        {"epochs": "three or four, or perhaps a few more"},
        r"epochs: expected a whole number.*'three",
        "",
    ),
    "a misspelt balance": (
        {"class_weights": "balancd"},
        "class_weights is 'balancd'",
        "expected 'balanced', or a table",
    ),
    "a weight of nothing": ({"class_weights": {"3": 0}}, r"teacher\.fit\.class_weights\.3: .*above 0", ""),
    "an average of all": ({"ema": 1.0}, "teacher.fit.ema: expected a number below 1", ""),
    "half a network": ({"train_layers": "top"}, "train_layers is 'top'", "expected 'all', 'head' or a list of names"),
    "nothing to train": ({"train_layers": []}, "train_layers names nothing to train", "epochs = 0"),
    "frozen and thawed": ({"train_layers": "head", "unfreeze": 1}, "train_layers must stay 'all'", "leave out one"),
    "computed again, and compiled": (
        {"compile": True, "gradient_checkpointing": True},
        "compile decides itself",
        "leave out gradient_checkpointing",
    ),
    "compiled, and thawed": ({"compile": True, "unfreeze": 1}, "and unfreeze changes that", "leave out one"),
    "steps after the end": (
        {"schedule": "step", "epochs": 5},
        "step_every = 10 epochs, of epochs = 5: the learning rate never becomes smaller",
        "lower step_every, or raise epochs",
    ),
    "a plateau after the end": (
        {"schedule": "plateau", "step_every": 4, "epochs": 5},
        "step_every = 4 epochs, of epochs = 5: the learning rate never becomes smaller",
        "lower step_every, or raise epochs",
    ),
    "a plateau after the end, since layers that are stacked do not count": (
        {"schedule": "plateau", "step_every": 3, "epochs": 6, "stack": {"layers": [1], "epochs": [2]}},
        "step_every = 3 epochs, of epochs = 6, of which 2 train a part of the layers: the learning rate never",
        "lower step_every, or raise epochs",
    ),
    "thawed after the end": ({"unfreeze": 3, "epochs": 3}, "nothing but the head is ever trained", "lower unfreeze"),
    "rates of one layer": ({"train_layers": "head", "layer_decay": 0.9}, "layer_decay says nothing where", "leave out"),
}


def fit_of(settings: dict[str, Any]) -> Any:
    content = tomllib.loads(RECIPE)
    content["teacher"]["fit"] = settings
    return parse_recipe(content, "tiny").teacher.fit


@pytest.mark.parametrize("name", WRONG)
def test_what_makes_no_sense_is_refused_by_name(name: str) -> None:
    settings, message, hint = WRONG[name]
    with pytest.raises(UserError, match=message) as refused:
        fit_of(settings)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "plateau", "step_every": 3, "threshold": 0.01, "epochs": 5},
        {"schedule": "plateau", "step_every": 3, "epochs": 7, "stack": {"layers": [1], "epochs": [2]}},
        {"patience": 3, "threshold": 0.01},
        {"loss": "focal", "focal_gamma": 1.0, "class_weights": {"3": 4.0}},
        {"class_weights": "balanced", "label_smoothing": 0.1},
        {"train_layers": ["classifier", "*.5.*"], "layer_decay": 0.9},
        {"unfreeze": 2, "layer_decay": 0.9},
    ],
)
def test_what_makes_sense_is_taken_as_it_is_written(settings: dict[str, Any]) -> None:
    dumped = fit_of(settings).model_dump(mode="json")
    assert {name: dumped[name] for name in settings} == settings


def test_what_is_taken_as_it_is_learns_nothing() -> None:
    content = tomllib.loads(RECIPE)
    content["students"] = [{"name": "small", "model": "builtin:resnet8", "fit": {"epochs": 0}, "distill": {}}]
    with pytest.raises(UserError, match=r"student 'small' has \[students.distill\], but fit.epochs = 0") as refused:
        parse_recipe(content, "tiny")
    assert "leave out [students.distill]" in refused.value.hint


def test_features_are_not_looked_for_in_a_compiled_network() -> None:
    content = tomllib.loads(RECIPE)
    features = [{"loss": "hints", "weight": 1.0}]
    student = {"name": "small", "model": "builtin:resnet8", "fit": {"compile": True}, "distill": {"features": features}}
    content["students"] = [student]
    with pytest.raises(UserError, match=r"student 'small': \[\[students.distill.features\]\] look into the network"):
        parse_recipe(content, "tiny")
    parse_recipe({**content, "students": [{**student, "fit": {}}]}, "tiny")


def test_what_compares_a_batch_is_not_cut_in_halves() -> None:
    content = tomllib.loads(RECIPE)
    student = {"name": "small", "model": "builtin:resnet8", "fit": {"shrink_on_oom": True}}
    content["students"] = [{**student, "distill": {"method": "dist"}}]
    with pytest.raises(UserError, match=r"student 'small': fit\.shrink_on_oom shows a part of an update"):
        parse_recipe(content, "tiny")
    parse_recipe({**content, "students": [{**student, "distill": {"method": "dist", "intra_weight": 0.0}}]}, "tiny")


@pytest.mark.parametrize(
    "settings",
    [{"loss": "mse"}, {"label_smoothing": 0.1}, {"class_weights": "balanced"}, {"loss": "focal", "focal_gamma": 1.0}],
)
def test_a_loss_on_labels_that_nobody_learns_by_is_refused(settings: dict[str, Any]) -> None:
    content = tomllib.loads(RECIPE)
    student = {"name": "small", "model": "builtin:resnet8", "fit": settings, "control": False}
    content["students"] = [{**student, "distill": {"alpha": 1.0}}]
    named = " and ".join(f"fit.{name}" for name in settings)
    with pytest.raises(
        UserError, match=rf"student 'small': {named} shape the loss on labels, but .*alpha = 1"
    ) as refused:
        parse_recipe(content, "tiny")
    assert refused.value.hint == f"leave out {named}, or lower distill.alpha"
    for kept in ({"distill": {"alpha": 0.9}}, {}, {"distill": {"alpha": 1.0}, "fit": {}}):
        parse_recipe({**content, "students": [{**student, **kept}]}, "tiny")
    # the control learns by it, also once it is written out
    resolved = parse_recipe({**content, "students": [{**student, "distill": {"alpha": 1.0}, "control": True}]}, "tiny")
    assert [one.fit.of_labels for one in resolved.students] == [tuple(settings)] * 2
    assert parse_recipe(resolved.model_dump(mode="json"), "tiny") == resolved
