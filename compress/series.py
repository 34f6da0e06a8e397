"""Several runs of one recipe that differ in one setting, each in a folder of its own inside a common one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from compress.console import Console
from compress.pipeline import run
from compress.recipe import Recipe
from compress.rundir import RUN_JSON
from serve.errors import UserError


def run_series(recipes: Mapping[str, Recipe], folder: Path, command: str, console: Console) -> list[Path]:
    """Run each recipe in `folder`/NAME, in turn; the run directories.

    A run that is there goes on, or is only read where it is whole. Raises UserError, also where `folder` is a run.
    """
    if (folder / RUN_JSON).exists():
        raise UserError(f"{folder} is a run directory", "give the series a folder of its own with --out")
    for name, recipe in recipes.items():
        console.say(f"{name}: {folder / name}")
        run(recipe, folder / name, console, command)
    return [folder / name for name in recipes]
