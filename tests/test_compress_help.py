"""What `--help` says of each command: what it does, its options, and examples that the command line takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from command_line import take, words_of
from typer.testing import CliRunner

from compress.cli import app

WIDTH = 80  # of a terminal as it comes


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, and the words that name it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, each in inner.items():
        yield from commands(each, (*path, name))


ALL = dict(commands(typer.main.get_command(app)))
GROUPS = sorted({path[:at] for path in ALL for at in range(len(path))})


def shown(path: tuple[str, ...]) -> str:
    done = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": str(WIDTH)})
    assert done.exit_code == 0
    return done.output


def examples_of(command: Any) -> list[str]:
    return [line.strip() for line in (command.epilog or "").splitlines() if line.startswith("  ")]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_a_command_says_what_it_does_and_how_to_call_it(path: tuple[str, ...]) -> None:
    command, text = ALL[path], shown(path)
    assert command.help.partition("\n")[0].endswith(".")
    lines = examples_of(command)
    assert lines, f"{' '.join(path)} shows no example: epilog=examples(...)"
    for line in lines:
        assert f"\n    {line}\n" in text, "an example is broken where the line ends"
        words = words_of(line)
        assert words[0] == "limbeck"
        assert tuple(words[1 : 1 + len(path)]) == path
        assert take(words[1:]).name == path[-1]
    assert max(map(len, text.splitlines())) <= WIDTH


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_each_option_is_explained_and_says_its_default(path: tuple[str, ...]) -> None:
    for option in ALL[path].params:
        assert option.help, f"{option.name} is not explained"
        chosen = option.param_type_name == "option" and not (option.required or option.is_flag or option.multiple)
        if chosen and option.default is None:
            assert "[default: " in option.help, f"--{option.name}: what happens without it?"


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: " ".join(path) or "limbeck")
def test_in_the_list_of_commands_each_sentence_is_whole(path: tuple[str, ...]) -> None:
    text = shown(path)
    assert "..." not in text.partition("Commands:")[2], "a command's first sentence is too long for the list"
    assert max(map(len, text.splitlines())) <= WIDTH
