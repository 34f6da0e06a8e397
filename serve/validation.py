"""What pydantic found wrong with a configuration, in words for whoever wrote it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from serve.errors import SettingError, did_you_mean

_MOST_SHOWN = 60  # characters of a value that is quoted
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "unknown key",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "expected a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "expected a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    "string_type": "expected text",
    **dict.fromkeys(("tuple_type", "list_type"), "expected a list"),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "expected a table"),
    "greater_than": "expected a number above {gt:g}",
    "greater_than_equal": "expected {ge:g} or more",
    "less_than": "expected a number below {lt:g}",
    "less_than_equal": "expected {le:g} or less",
    "too_short": "expected {min_length} entries or more",
    "too_long": "expected {max_length} entries or fewer",
    "string_too_long": "expected {max_length} characters or fewer",
}
_WITHOUT_VALUE = ("missing", "extra_forbidden", "value_error")


@dataclass(frozen=True)
class Problem:
    """One problem. `kind` is pydantic's name for it; `hint` is empty where none is known."""

    path: tuple[str, ...]  # of keys; empty for what several fields have wrong together
    kind: str
    given: str  # the value, shortened
    message: str
    hint: str

    @property
    def where(self) -> str:
        """The field as `--set` takes it: "teacher.fit.epochs"."""
        return ".".join(self.path)

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.path else self.message


def first_problem(error: ValidationError) -> Problem:
    """The first of the problems that `error` lists."""
    found = error.errors()[0]
    kind, given = found["type"], _short(found["input"])
    # of a value that may be one thing or another, such as class_weights, pydantic names which it tried
    path = tuple(str(part) for part in found["loc"] if "[" not in str(part))
    cause = found.get("ctx", {}).get("error")
    if isinstance(cause, SettingError):
        return Problem(path, kind, given, str(cause), cause.hint)
    message = _WORDS[kind].format(**found.get("ctx", {})) if kind in _WORDS else _plain(found["msg"])
    hint = ""
    if kind == "literal_error" and isinstance(found["input"], str):
        hint = did_you_mean(found["input"], re.findall(r"'([^']*)'", found["ctx"]["expected"]))
    return Problem(path, kind, given, message if kind in _WITHOUT_VALUE else f"{message}, got {given}", hint)


def _plain(message: str) -> str:
    """pydantic's sentence as the end of one."""
    message = re.sub(r"^Input should be ", "expected ", message.removeprefix("Value error, "))
    return message[:1].lower() + message[1:]


def _short(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."
