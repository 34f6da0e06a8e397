"""What the commands have in common: exit codes, and the arguments that several of them take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.cli.complete import packages, recipes, runs
from compress.recipes import named

DONE, BUG, USER_ERROR, NOTHING_MET, STOPPED = 0, 1, 2, 3, 130


def examples(*commands: str) -> str:
    """The end of a command's help: commands that work, one a line, which the line of \\b keeps from being joined."""
    return "\n".join(["\b", "Examples:", *(f"  {command}" for command in commands)])


def own_recipe(path: Path | None) -> Path | None:
    """A recipe of the command line, which may be the name of one of limbeck's own."""
    return None if path is None else named(path)


RunFolder = Annotated[
    Path, typer.Argument(help="A run directory, e.g. runs/digits.", metavar="RUN", autocompletion=runs)
]
RecipeFile = Annotated[
    Path,
    typer.Argument(
        help="A recipe, e.g. recipe.toml, or one of limbeck's own by its name, e.g. digits.",
        autocompletion=recipes,
        callback=own_recipe,
    ),
]
Target = Annotated[
    Path | None,
    typer.Argument(
        help="A run or a model package. [default: the newest run with a selection]", autocompletion=packages
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change the recipe; may be given several times. Lists: 'KEY=[1, 8]'."
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
