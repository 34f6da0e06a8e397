from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from serve.errors import UserError
from serve.logs import log, log_format, set_up


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What BentoML's handler would write."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("[%(levelname)s] %(message)s"))
    parent = logging.getLogger("bentoml")
    level = parent.level
    parent.addHandler(handler)
    parent.setLevel(logging.INFO)
    yield stream
    parent.removeHandler(handler)
    parent.setLevel(level)


def _fail() -> None:
    try:
        raise ValueError("a\nbad day")
    except ValueError:
        log.exception("request %s failed", "r1", extra={"fields": {"request_id": "r1"}})


def test_each_line_of_json_names_the_model_and_the_request(stream: io.StringIO) -> None:
    set_up("json", "abc123")
    log.info("hello %s", "there")
    _fail()
    log.info("other", extra={"fields": {"model": "another"}})
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert (first["message"], first["level"], first["model"]) == ("hello there", "info", "abc123")
    assert (second["request_id"], second["model"]) == ("r1", "abc123")
    assert "bad day" in second["exception"]
    assert third["model"] == "another"


def test_text_keeps_its_form_and_names_the_model_on_the_first_line(stream: io.StringIO) -> None:
    set_up("text", "abc123")
    _fail()
    first, *more = stream.getvalue().splitlines()
    assert first == "[ERROR] request r1 failed model=abc123"
    assert more[0].startswith("Traceback")


def test_another_model_takes_the_place_of_the_first(stream: io.StringIO) -> None:
    set_up("text", "first")
    set_up("text", "second")
    log.info("hello")
    assert stream.getvalue() == "[INFO] hello model=second\n"


def test_an_unknown_format_is_refused() -> None:
    assert log_format({}) == "text"
    with pytest.raises(UserError) as error:
        log_format({"LIMBECK_LOG": "jsn"})
    assert error.value.hint == "did you mean 'json'?"
