"""Where the weights of a recipe's models come from, and under which licence, for the model card."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions
from pathlib import Path
from typing import Any

from compress.recipe import TEACHER, NamedTeacher, Recipe, Student
from compress.report.schema import Origin
from serve.errors import UserError
from train.models import needs_teacher
from train.models.hub import resolve

# Hugging Face's front matter of a README.md: `license: apache-2.0` between two lines of dashes.
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---", re.DOTALL)
_LICENCE = re.compile(r"^license:\s*[\"']?([\w.+ -]+)", re.MULTILINE)
_LONGEST = 60  # characters: some packages have the whole text in place of a name


def told_of_origins(recipe: Recipe) -> dict[str, Any]:
    """Fields of a report: `origins`, `teacher_licence`, and `card` as the recipe states it."""
    named: list[NamedTeacher | Student] = [*recipe.teachers, *recipe.with_controls().students]
    origins = {TEACHER: _origin(recipe.teacher.model, recipe.teacher.options)}
    origins |= {model.name: _origin(model.model, model.options) for model in named}
    return {
        "origins": origins,
        "teacher_licence": origins[TEACHER].licence,
        "card": recipe.card.model_dump(exclude_none=True),
    }


def _origin(model: str, options: dict[str, Any]) -> Origin:
    prefix = model.partition(":")[0]
    fresh = {
        "builtin": not needs_teacher(model, options),
        "torchvision": not options.get("weights"),
    }.get(prefix, False)
    return Origin(model=model, fresh=fresh, licence=licence_of(model))


def licence_of(model: str) -> str | None:
    """The licence that a pretrained model's README.md or its Python package states; None where neither does."""
    prefix, _, name = model.partition(":")
    if prefix not in ("hf", "pkg"):
        return None
    try:
        readme = resolve(prefix, name, weights=False) / "README.md"  # type: ignore[arg-type]
    except UserError:
        return None
    return _of_readme(readme) or (_of_package(name.partition("/")[0]) if prefix == "pkg" else None)


def _of_readme(file: Path) -> str | None:
    try:
        front = _FRONT.match(file.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    found = _LICENCE.search(front[1]) if front else None
    return found[1].strip() if found else None


def _of_package(module: str) -> str | None:
    """As its metadata have it, by the field of today or by the one before it."""
    try:
        about = metadata(packages_distributions().get(module, [module])[0]).json
    except PackageNotFoundError:
        return None
    stated = (str(about.get(field, "")).strip() for field in ("license_expression", "license"))
    return next((text for text in stated if 0 < len(text) <= _LONGEST), None)
