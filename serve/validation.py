"""What pydantic found wrong with a configuration, in words for whoever wrote it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from serve.errors import SettingError, did_you_mean

_MOST_SHOWN = 60  # characters of a value that is quoted
_WORDS = {"missing": "is missing", "extra_forbidden": "unknown key"}


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
    if kind in _WORDS:
        return Problem(path, kind, given, _WORDS[kind], "")
    message = found["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be ", "expected ", 1) if message.startswith("Input") else message
    message = message[:1].lower() + message[1:]
    hint = ""
    if kind == "literal_error" and isinstance(found["input"], str):
        hint = did_you_mean(found["input"], re.findall(r"'([^']*)'", found["ctx"]["expected"]))
    return Problem(path, kind, given, message if kind == "value_error" else f"{message}, got {given}", hint)


def _short(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."
