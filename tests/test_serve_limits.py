from __future__ import annotations

import pytest

from serve.errors import UserError
from serve.limits import Limits


def test_each_limit_can_be_set_by_the_environment() -> None:
    names = (
        *("MAX_BODY_BYTES", "MAX_ITEMS", "MAX_TEXT_CHARS", "MAX_CONCURRENCY", "BODY_SECONDS", "REQUEST_SECONDS"),
        *("MAX_QUEUE", "MAX_CONNECTIONS", "HEAD_SECONDS"),
    )
    environ = {f"LIMBECK_{name}": str(number) for number, name in enumerate(names, 1)}
    assert Limits.from_env(environ) == Limits(1, 2, 3, 4, 5, 6, 7, 8, 9)


def test_what_is_not_set_has_its_default() -> None:
    assert Limits.from_env({"LIMBECK_MAX_ITEMS": "7", "LIMBECK_BODY_SECONDS": "", "OTHER": "x"}) == Limits(max_items=7)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1e3", "many", " 1", "²"])
def test_what_is_not_a_whole_number_above_0_is_refused_by_name(text: str) -> None:
    with pytest.raises(UserError, match="LIMBECK_MAX_ITEMS") as caught:
        Limits.from_env({"LIMBECK_MAX_ITEMS": text})
    assert caught.value.hint


def test_a_body_arrives_within_the_time_of_its_request() -> None:
    assert Limits().body_seconds < Limits().request_seconds
