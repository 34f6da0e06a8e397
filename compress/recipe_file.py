"""From a TOML file to a checked recipe: `--set` changes, and errors that name what was meant."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import BaseModel, ValidationError

from compress.recipe import Recipe, Student, Teacher
from compress.recipes import names
from compress.teachers import all_teachers
from serve.errors import UserError, did_you_mean
from serve.validation import first_problem
from train.augment.augmenter import check_augmentation
from train.classifier import ModelConfig

_SCHEMA = "`limbeck config schema` prints every field"


def load_recipe(path: Path, changes: list[str] | None = None) -> Recipe:
    """Read a recipe, apply `--set` changes, check it, and write out its controls. Raises UserError."""
    return parse_recipe(read_content(path, changes), str(path))


def read_content(path: Path, changes: list[str] | None = None) -> dict[str, Any]:
    """The content of a recipe with `--set` changes, not checked yet. Raises UserError."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = [str(other) for other in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        known = there if path.suffix or path.parent != Path() else [*there, *names()]
        hint = did_you_mean(str(path), known) if known else "`limbeck init DATA` writes one that fits your data"
        raise UserError(f"no recipe at {path}", hint) from None
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror}", "expected a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = 'strings need quotes, tables a line of their own: name = "mine", then [data]'
        raise UserError(f"{path} is not TOML: {error}", hint) from None
    for change in changes or []:
        apply_change(content, change)
    return content


def parse_recipe(content: dict[str, Any], origin: str) -> Recipe:
    """Check a recipe's content; `origin` names it in errors."""
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise _explain(error, content, origin) from None
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
            raise UserError(f"--set {change}: '{path}' is not a key of a table", _SCHEMA)
        place[last] = value


def as_change(field: str, value: Any) -> str:
    """What `apply_change` takes to set `field` to `value`."""
    return f"{field}={tomlkit.item(_inline(value)).as_string()}"


def _inline(value: Any) -> Any:
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update({key: _inline(inner) for key, inner in value.items()})
        return table
    if isinstance(value, list):
        array = tomlkit.array()
        array.extend(_inline(inner) for inner in value)
        return array
    return value


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
    raise UserError(f"--set {change}: '{part}' is inside something that is not a table", _SCHEMA)


def _explain(error: ValidationError, content: Any, origin: str) -> UserError:
    """The first problem of a recipe as one sentence with a hint."""
    problem = first_problem(error)
    where = ".".join(_by_name(problem.path, content))
    if problem.kind == "extra_forbidden":
        known = _keys_beside(error.errors()[0]["loc"])
        return UserError(f"{origin}: unknown key '{where}'", did_you_mean(problem.path[-1], known))
    if problem.kind == "missing":
        return UserError(f"{origin}: '{where}' is missing", _SCHEMA)
    if problem.kind == "string_pattern_mismatch":
        allowed = "letters, digits, '.', '_' and '-', the first a letter or a digit"
        return UserError(f"{origin}: {where} = {problem.given} is no name", f"expected {allowed}")
    return UserError(f"{origin}: {where + ': ' if where else ''}{problem.message}", problem.hint or _SCHEMA)


def _by_name(path: tuple[str, ...], content: Any) -> list[str]:
    """The keys of `path`, with tables of a list by their names, as `--set` takes them: students.small.fit."""
    found = []
    for key in path:
        table = content[int(key)] if isinstance(content, list) and key.isdigit() else None
        name = table.get("name") if isinstance(table, dict) else None
        found.append(name if isinstance(name, str) and path[-1] != "name" else key)
        content = table if table is not None else content.get(key) if isinstance(content, dict) else None
    return found


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
