"""The values that a search draws from: ranges and lists, by the name of what they are for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from serve.errors import SettingError, did_you_mean

_KEYS = ("low", "high", "step", "log")
_EXAMPLE = "expected a list of values, or { low = 1e-5, high = 1e-3, log = true }"
_SLACK = 1e-9  # of a step, for sums of floats
_PROBE = 0.382  # where between low and high a value is tried: no round share, so that it is no whole number by chance


@dataclass(frozen=True)
class Range:
    """`low` to `high`, both included; whole numbers where low, high and step all are.

    `log`: uniform in the logarithm.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    @property
    def distribution(self) -> BaseDistribution:
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(float(self.low), float(self.high), log=self.log, step=self.step)

    @property
    def values(self) -> list[Any] | None:
        """All of them in order; None where there is no end to them."""
        if self.step is None and not self.whole:
            return None
        step = self.step or 1
        count = math.floor((self.high - self.low) / step + _SLACK) + 1
        if self.whole:
            return [int(self.low + at * step) for at in range(count)]
        # in decimals, as they were written: 0.1 + 3 * 0.2 is 0.7000000000000001 in floats, and above high = 0.7
        return [float(Decimal(str(self.low)) + at * Decimal(str(step))) for at in range(count)]

    @property
    def probes(self) -> list[Any]:
        """A few values that stand for all of them in a check of types and bounds."""
        return [self.low, self.high, *([] if self.values else [self.low + _PROBE * (self.high - self.low)])]


@dataclass(frozen=True)
class Choice:
    """One of a list, without order."""

    values: list[Any]

    @property
    def distribution(self) -> BaseDistribution:
        return CategoricalDistribution(self.keys)

    @property
    def keys(self) -> list[CategoricalChoiceType]:
        """The values as a storage can hold them: lists and tables by what they look like."""
        return [value if isinstance(value, str | int | float | bool) else repr(value) for value in self.values]

    @property
    def probes(self) -> list[Any]:
        return self.values


Space = dict[str, Range | Choice]


def space_of(search: Mapping[str, Any]) -> Space:
    """The space that a `search` table describes. Raises ValueError that names the entry and what is wrong with it."""
    if not search:
        raise SettingError("tune.search is empty", f"name at least one field; {_EXAMPLE}")
    return {name: _entry(f'tune.search."{name}"', given) for name, given in search.items()}


def drawn(params: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """The values of a trial, by name, from its `params` in the storage."""
    return {name: value_of(space[name], stored) for name, stored in params.items() if name in space}


def value_of(entry: Range | Choice, stored: Any) -> Any:
    """The value that the storage holds as `stored`."""
    return entry.values[entry.keys.index(stored)] if isinstance(entry, Choice) else stored


def stored_of(entry: Range | Choice, value: Any) -> Any:
    """What the storage holds for `value`."""
    return entry.keys[entry.values.index(value)] if isinstance(entry, Choice) else value


def combinations(space: Space) -> list[dict[str, Any]]:
    """Every combination, the last name's value changing fastest. Raises ValueError for a range without steps."""
    for name, entry in space.items():
        if entry.values is None:
            raise SettingError(
                f'tune.search."{name}" has no end of values, so no grid', "give it a step, or list the values"
            )
    return [
        dict(zip(space, values, strict=True)) for values in itertools.product(*(e.values or [] for e in space.values()))
    ]


def _entry(where: str, given: Any) -> Range | Choice:
    if isinstance(given, list):
        if len(given) < 2:
            raise SettingError(
                f"{where} has nothing to choose from", "list two values or more, or set it in the recipe"
            )
        choice = Choice(given)
        if len({(type(key), key) for key in choice.keys}) < len(given) or len(set(choice.keys)) < len(given):
            raise SettingError(f"{where} lists a value twice", "list each value once")
        return choice
    if isinstance(given, dict):
        return _range(where, given)
    raise SettingError(f"{where} is {given!r}", _EXAMPLE)


def _range(where: str, given: dict[str, Any]) -> Range:
    unknown = next((key for key in given if key not in _KEYS), None)
    if unknown is not None:
        if isinstance(given[unknown], dict | list):
            raise SettingError(
                f"{where} holds '{unknown}', as TOML reads a name with dots",
                f"put the name in quotes: {_quoted(where, given)}",
            )
        raise SettingError(f"{where}: unknown key '{unknown}'", did_you_mean(unknown, _KEYS))
    missing = next((key for key in ("low", "high") if key not in given), None)
    if missing is not None:
        raise SettingError(f"{where}: '{missing}' is missing", _EXAMPLE)
    for key in ("low", "high", "step"):
        number = given.get(key, 1)
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise SettingError(f"{where}: {key} must be a number, got {number!r}", _EXAMPLE)
    if not isinstance(given.get("log", False), bool):
        raise SettingError(f"{where}: log must be true or false, got {given['log']!r}", _EXAMPLE)
    found = Range(**given)
    if found.low >= found.high:
        raise SettingError(f"{where}: low = {found.low} must be below high = {found.high}", _EXAMPLE)
    if found.log and found.low <= 0:
        raise SettingError(f"{where}: log = true needs low above 0, got {found.low}", "raise low, or leave out log")
    if found.log and found.step is not None and not (found.whole and found.step == 1):
        raise SettingError(f"{where}: log = true takes no step", "leave out step or log, or list the values")
    if found.step is not None:
        _check_step(where, found, found.step)
    return found


def _quoted(where: str, given: Any) -> str:
    """The line that was meant by `teacher.fit.learning_rate = [1, 2]`: "teacher.fit.learning_rate" = ..."""
    name = where.removeprefix('tune.search."').removesuffix('"')
    while isinstance(given, dict) and not set(given) & set(_KEYS):
        inner, given = next(iter(given.items()))
        name += f".{inner}"
    return f'"{name}" = ...'


def _check_step(where: str, found: Range, step: float) -> None:
    if step <= 0:
        raise SettingError(f"{where}: step must be above 0, got {step}", "leave it out, or give a larger one")
    steps = (found.high - found.low) / step
    if abs(steps - round(steps)) > _SLACK * max(1.0, steps):
        hint = f"set high = {found.low + math.floor(steps) * step:g}" if steps > 1 else "give a smaller step"
        raise SettingError(f"{where}: steps of {step} from {found.low} never reach high = {found.high}", hint)
