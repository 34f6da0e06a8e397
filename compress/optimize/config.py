"""[optimize] of a recipe: what is searched, and for how long."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from serve.errors import SettingError
from serve.manifest import GraphLevel, Precision
from train.distill import DistillConfig
from train.fit_config import FitConfig
from train.prune import PruneConfig

SPACE_NAME_LENGTH = 20  # of an entry of [[optimize.students]]; what is chosen comes behind it
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_EXAMPLE = "expected a time such as '30m', '2h' or '1h30m'"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StudentSpace(_Table):
    """[[optimize.students]]: a student of which `model` and each of `options` may be a list to choose from."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=SPACE_NAME_LENGTH)
    model: str | tuple[str, ...]
    options: dict[str, Any] = {}  # a list is a choice; an option that is a list itself is written as a list of lists
    fit: FitConfig = FitConfig()
    distill: DistillConfig | None = None
    prune: PruneConfig = PruneConfig()

    @property
    def choices(self) -> dict[str, list[Any]]:
        """What there is to choose from: "model" and names of options, each with two values or more."""
        models = [self.model] if isinstance(self.model, str) else list(self.model)
        lists = {"model": models, **{name: value for name, value in self.options.items() if isinstance(value, list)}}
        return {name: values for name, values in lists.items() if len(values) > 1}

    @model_validator(mode="after")
    def _has_something_to_choose(self) -> StudentSpace:
        if not isinstance(self.model, str) and not self.model:
            raise SettingError(f"'{self.name}' has an empty list of models", 'name one: model = "teacher-layers:3"')
        empty = next((name for name, value in self.options.items() if value == []), None)
        if empty is not None:
            raise SettingError(f"'{self.name}': options.{empty} is an empty list", "list values, or leave it out")
        if self.fit.final_refit:
            raise SettingError(
                f"'{self.name}': fit.final_refit trains on validation, which judges the search",
                "leave it out, and set it in the recipe that the search writes",
            )
        return self


class OptimizeConfig(_Table):
    """[optimize]: everything may be left out; what is taken then is printed, and written into the resolved recipe."""

    budget: str = "30m"  # of the search, with what was spent before a resume; the pass over test comes on top
    students: tuple[StudentSpace, ...] | None = None  # None: what suits the teacher; [[students]] are tried in any case
    precisions: tuple[Precision, ...] | None = None  # None: those of [quantize]
    # None: as [serving] says, else 1
    threads: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(default=None, min_length=1)
    graph_levels: tuple[GraphLevel, ...] | None = Field(default=None, min_length=1)  # None: as [serving], else all
    together: int = Field(default=6, ge=1)  # students that compete: trained a little, the better ones further
    keep_one_of: int = Field(default=3, ge=2)  # at each step of successive halving
    # How likely a trial must be, by its validation items, to hold on test. Epochs are chosen on these items too, which
    # then flatter: more than the 0.8 that trials are usually planned for.
    assurance: float = Field(default=0.9, ge=0, lt=1)
    latency_samples: int = Field(default=200, ge=20)  # in the search; those that remain are timed again
    seed: int | None = Field(default=None, ge=0, lt=2**32)  # of what is tried in which order; None: the recipe's

    @field_validator("budget")
    @classmethod
    def _is_a_time(cls, budget: str) -> str:
        seconds_of(budget)
        return budget

    @model_validator(mode="after")
    def _makes_sense(self) -> OptimizeConfig:
        names = [student.name for student in self.students or ()]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise SettingError(f"two of [[optimize.students]] are called '{twice}'", "rename one")
        if self.precisions is not None and "fp32" not in self.precisions:
            raise SettingError("precisions must hold 'fp32', from which the others are made", "add 'fp32' to it")
        return self

    @property
    def seconds(self) -> float:
        """The budget."""
        return seconds_of(self.budget)


def seconds_of(text: str) -> float:
    """Seconds of "30m", "2h", "45s" or "1h30m". Raises ValueError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.replace(" ", ""):
        raise SettingError(f"'{text}' is no budget", _EXAMPLE)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if total <= 0:
        raise SettingError(f"'{text}' leaves no time to search in", _EXAMPLE)
    return total
