from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serve.errors import SettingError
from serve.validation import Problem, first_problem


class Inner(BaseModel):
    count: int = Field(default=1, ge=1)
    share: float = Field(default=0.5, gt=0, lt=1)
    kind: Literal["one", "two"] = "one"
    names: tuple[str, ...] = ()
    weights: dict[str, Annotated[float, Field(gt=0)]] | str | None = None
    flag: bool = False

    @model_validator(mode="after")
    def _agrees(self) -> Inner:
        if self.flag and self.count == 1:
            raise SettingError("flag needs a count of more than one", "set count = 2 or more")
        return self


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inner: Inner
    more: tuple[Inner, ...] = ()


def problem_of(content: Any) -> Problem:
    with pytest.raises(ValidationError) as refused:
        Outer.model_validate(content)
    return first_problem(refused.value)


@pytest.mark.parametrize(
    ("content", "said", "hint"),
    [
        ({}, "inner: is missing", ""),
        ({"inner": 3}, "inner: expected a table, got 3", ""),
        ({"inner": {"count": "x"}}, "inner.count: expected a whole number, got 'x'", ""),
        ({"inner": {"count": 0}}, "inner.count: expected 1 or more, got 0", ""),
        ({"inner": {"share": 1.5}}, "inner.share: expected a number below 1, got 1.5", ""),
        ({"inner": {"names": "ab"}}, "inner.names: expected a list, got 'ab'", ""),
        ({"inner": {"flag": 7}}, "inner.flag: expected true or false, got 7", ""),
        ({"inner": {"weights": {"a": 0}}}, "inner.weights.a: expected a number above 0, got 0", ""),
        ({"inner": {"kind": "tow"}}, "inner.kind: expected 'one' or 'two', got 'tow'", "did you mean 'two'?"),
        ({"inner": {}, "innre": 1}, "innre: unknown key", ""),
        ({"inner": {"flag": True}}, "inner: flag needs a count of more than one", "set count = 2 or more"),
        ({"inner": {}, "more": [{}, {"count": -1}]}, "more.1.count: expected 1 or more, got -1", ""),
    ],
)
def test_a_problem_is_said_with_its_field_and_how_to_mend_it(content: Any, said: str, hint: str) -> None:
    problem = problem_of(content)
    assert (str(problem), problem.hint) == (said, hint)


def test_a_long_value_is_quoted_in_part() -> None:
    assert len(str(problem_of({"inner": {"count": "long " * 1000}}))) < 120
