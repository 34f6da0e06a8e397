"""Errors that speak to a person: what happened, what was expected, how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class LimbeckError(Exception):
    """A failure to be shown to the user as `message` and `hint`, without a traceback."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UserError(LimbeckError):
    """Something the user asked for cannot be done as asked (exit code 2)."""


class SettingError(ValueError):
    """A setting that cannot be, in a check of pydantic's, which adds where it is; see serve/validation.py."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class PackageError(UserError):
    """A model package is missing, incomplete or not what its manifest says."""


class InputError(LimbeckError):
    """One input of a request (an image, a text) cannot be read. `code` is stable, for programs."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.code = code


class RequestError(InputError):
    """A whole request cannot be answered. `status` is the HTTP status that says so, `headers` go with it."""

    def __init__(
        self, status: int, code: str, message: str, hint: str = "", headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(code, message, hint)
        self.status = status
        self.headers = headers


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown `name`: the closest of `known`, or the whole list when it is short."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if known and len(known) <= 12:
        return "known: " + ", ".join(known)
    return f"{len(known)} names are known; none is close to '{name}'"


def said(error: BaseException) -> str:
    """One line on what a library or the system raised: its first, without a system error's number, and never empty."""
    inner = getattr(error, "reason", None)  # urllib's error holds the one that tells
    if isinstance(inner, BaseException):
        return said(inner)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
