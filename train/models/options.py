"""A model's `options`, as a recipe gives them, checked against those that the model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from serve.errors import UserError, did_you_mean
from serve.validation import first_problem

Options = TypeVar("Options", bound=BaseModel)


def parse_options(kind: type[Options], model: str, options: Mapping[str, Any], others: Sequence[str] = ()) -> Options:
    """`options` as `kind`. `others` are what `model` takes besides, to be named in errors.

    Raises UserError, with the name that may have been meant, for an option that is unknown or has no such value.
    """
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        problem, known = first_problem(error), [*kind.model_fields, *others]
        key, message = problem.path[0], problem.message.removesuffix(f", got {problem.given}")
        refused = f"model '{model}' does not take option {key} = {options.get(key)!r}"
        if problem.kind == "extra_forbidden":
            raise UserError(refused, did_you_mean(key, known)) from None
        raise UserError(f"{refused}: {message}", problem.hint or f"options: {', '.join(known)}") from None
