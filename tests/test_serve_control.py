from __future__ import annotations

from pathlib import Path

import pytest

from serve.control import Control, read_token
from serve.errors import UserError

TOKEN = "sixteen-letters-or-more"


def test_nothing_can_change_unless_it_is_asked_for() -> None:
    control = Control.from_env({})
    assert not control.changeable
    assert not control.admits(b"Bearer ")
    assert not control.admits(b"")


def test_only_the_token_is_admitted(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    for environ in ({"LIMBECK_ADMIN_TOKEN": TOKEN}, {"LIMBECK_ADMIN_TOKEN_FILE": str(tmp_path / "token")}):
        control = Control.from_env(environ)
        assert control.changeable
        assert control.admits(f"Bearer {TOKEN}".encode())
        assert control.admits(f"bearer {TOKEN}".encode())
        for other in (
            "",
            TOKEN,
            f"Basic {TOKEN}",
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
            "Bearer",
            f"Bearer{TOKEN}",
        ):
            assert not control.admits(other.encode())
        assert TOKEN not in repr(control)
        assert read_token(environ) == TOKEN


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"LIMBECK_ADMIN_TOKEN": "short"}, "the token of LIMBECK_ADMIN_TOKEN has 5 characters, expected 16"),
        ({"LIMBECK_ADMIN_TOKEN": "with a space in its middle"}, "has a space or a character beyond ASCII"),
        ({"LIMBECK_ADMIN_TOKEN": TOKEN, "LIMBECK_ADMIN_TOKEN_FILE": "x"}, "are both set"),
        ({"LIMBECK_ADMIN_TOKEN_FILE": "/nowhere/at/all"}, "LIMBECK_ADMIN_TOKEN_FILE cannot be read"),
        ({"LIMBECK_WATCH": "1"}, "LIMBECK_WATCH is set, but no folder to watch"),
        ({"LIMBECK_MODELS_DIR": "/nowhere", "LIMBECK_WATCH": "1"}, "which is no folder"),
        ({"LIMBECK_MODELS_DIR": "/"}, "nothing would load a model from it"),
    ],
)
def test_what_contradicts_itself_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Control.from_env(environ)
    assert caught.value.hint


def test_who_sends_the_token_is_told_where_it_belongs() -> None:
    with pytest.raises(UserError, match="there is no admin token"):
        read_token({})
