"""From a TOML file to a checked recipe: `--set` changes, and errors that name what was meant."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from compress.recipe import Recipe, Student, Teacher
from compress.teachers import all_teachers
from serve.errors import UserError, did_you_mean
from train.augment.augmenter import check_augmentation
from train.classifier import ModelConfig


def load_recipe(path: Path, changes: list[str] | None = None) -> Recipe:
    """Read a recipe, apply `--set` changes, check it, and write out its controls. Raises UserError."""
    return parse_recipe(read_content(path, changes), str(path))


def read_content(path: Path, changes: list[str] | None = None) -> dict[str, Any]:
    """The content of a recipe with `--set` changes, not checked yet. Raises UserError."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = [str(other) for other in sorted(path.parent.glob("*.toml"))] if path.parent.is_dir() else []
        hint = did_you_mean(str(path), beside) if beside else "expected a TOML file, as compress/recipes/digits.toml is"
        raise UserError(f"no recipe at {path}", hint) from None
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror}", "expected a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not TOML: {error}", "strings need quotes; see compress/recipes/digits.toml"
        ) from None
    for change in changes or []:
        apply_change(content, change)
    return content


def parse_recipe(content: dict[str, Any], origin: str) -> Recipe:
    """Check a recipe's content; `origin` names it in errors."""
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise _explain(error, origin) from None
    models: list[Teacher | Student] = [*all_teachers(recipe).values(), *recipe.students]
    for model in models:
        ModelConfig(model=model.model, options=model.options).checked(recipe.task)
        check_augmentation(model.fit.augment)
    return recipe.with_controls()


def apply_change(content: dict[str, Any], change: str) -> None:
    """`--set a.b.c=value`: the value is TOML, or a string; a student goes by name or number, all of them by `*`.

    Changes `content` in place. Raises UserError.
    """
    path, equals, text = change.partition("=")
    if not equals or not path:
        raise UserError(f"--set {change}: expected key=value", "for example --set teacher.fit.epochs=3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    places: list[Any] = [content]
    *parents, last = path.split(".")
    for part in parents:
        places = [child for place in places for child in _children(place, part, change)]
    for place in places:
        if not isinstance(place, dict):
            raise UserError(f"--set {change}: '{path}' is not a key of a table", "see `limbeck config schema`")
        place[last] = value


def _children(place: Any, part: str, change: str) -> list[Any]:
    if isinstance(place, dict):
        return [place.setdefault(part, {})]
    if isinstance(place, list):
        named = {str(child.get("name", number)): child for number, child in enumerate(place) if isinstance(child, dict)}
        if part == "*":
            return list(named.values())
        if part.isdigit() and int(part) < len(place):
            return [place[int(part)]]
        if part in named:
            return [named[part]]
        raise UserError(f"--set {change}: there is no '{part}'", did_you_mean(part, named))
    raise UserError(f"--set {change}: '{part}' is inside something that is not a table", "see `limbeck config schema`")


def _explain(error: ValidationError, origin: str) -> UserError:
    """The first problem of a recipe as one sentence with a hint."""
    problem = error.errors()[0]
    # of a value that may be one thing or another, such as class_weights, pydantic names which it tried
    where = ".".join(str(part) for part in problem["loc"] if "[" not in str(part))
    key = str(problem["loc"][-1]) if problem["loc"] else ""
    if problem["type"] == "extra_forbidden":
        return UserError(f"{origin}: unknown key '{where}'", did_you_mean(key, _keys_beside(problem["loc"])))
    if problem["type"] == "missing":
        return UserError(f"{origin}: '{where}' is missing", "see `limbeck config schema`")
    message = re.sub(r"^Value error, ", "", problem["msg"])
    given = "" if problem["type"] == "value_error" else f", got {problem['input']!r}"
    prefix = f"{where}: " if where else ""
    hint = "see `limbeck config schema`"
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        hint = did_you_mean(problem["input"], re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    return UserError(f"{origin}: {prefix}{message[:1].lower()}{message[1:]}{given}", hint)


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the table around `location` knows."""
    table: Any = Recipe
    for part in location[:-1]:
        if isinstance(part, str):
            annotation = table.model_fields[part].annotation
            table = next((found for found in _tables(annotation)), table)
    return list(table.model_fields)


def _tables(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in getattr(annotation, "__args__", ()) for table in _tables(part)]
