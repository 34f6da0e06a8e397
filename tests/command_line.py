"""The command line as tests ask it: would it take these words?"""

from __future__ import annotations

import itertools
import re
import shlex
from typing import Any

import typer

from compress.cli import app


def take(arguments: list[str]) -> Any:
    """Have the CLI read `arguments` without doing what they say; the command that would do it.

    Raises TyperException for what it would refuse.
    """
    command: Any = typer.main.get_command(app)
    context, name = None, "limbeck"
    while True:
        context = command.make_context(name, list(arguments), parent=context)
        if not hasattr(command, "resolve_command"):
            return command
        name, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])


def words_of(line: str) -> list[str]:
    """The words of a shell command up to a pipe or a redirection, without comment and variables set before it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words = list(itertools.takewhile(lambda word: word not in ("|", ">"), lexer))
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    return words
