"""`limbeck run` in one process or several: who leads, who follows, and what becomes of exit codes."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from compress.cli.shared import NOTHING_MET, STOPPED, USER_ERROR
from serve.errors import LimbeckError, UserError, said

if TYPE_CHECKING:
    from compress.recipe import Recipe

_LAUNCHER_SECONDS = 60  # in which a launcher has noticed that a process failed, also on a busy machine
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # where torchrun looks for what to say of a process that failed


def refuse_launcher(command: str, hint: str) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        with told_once():
            raise UserError(f"`limbeck {command}` trains in one process; several are for `limbeck run`", hint)


@contextmanager
def told_once() -> Iterator[None]:
    """For what all processes of a machine find out alike: one of them says it, and its launcher ends the others.

    They wait for that, since the first to fail has all others ended, who may not have said anything yet.
    """
    try:
        yield
    except UserError:
        if int(os.environ.get("LOCAL_RANK", "0")) > 0:
            time.sleep(_LAUNCHER_SECONDS)
            raise typer.Exit(USER_ERROR) from None
        raise


def leads() -> bool:
    """Whether this process prints and writes: the only one, or the first that torchrun or accelerate started."""
    return int(os.environ.get("RANK", "0")) == 0


def show(recipe: Recipe, folder: Path) -> None:
    """What a dry run says, once the files that the recipe names are found."""
    import tomli_w

    from train.data import check_files

    check_files(recipe.data)
    print(tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True)), end="")
    print(f"checked; would run in {folder}", file=sys.stderr)


def lead(recipe: Recipe, folder: Path, tensorboard: bool, shard: bool) -> None:
    """The part of a run that is for the only process, or the first."""
    from compress.console import Console
    from compress.launch import command_of_this_run, loses_exit_codes
    from compress.pipeline import run as run_recipe

    try:
        report = run_recipe(recipe, folder, Console(), command_of_this_run(), tensorboard, shard)
    except KeyboardInterrupt:
        raise stopped() from None
    print(report.verdict)
    print(f"report: {folder / 'report.html'}")
    if report.selected is not None:
        print(f"serve it: limbeck serve {folder}")
    elif loses_exit_codes():
        print(f"ends with 0 instead of {NOTHING_MET}, which torchrun would call a crash", file=sys.stderr)
    else:
        raise typer.Exit(NOTHING_MET)


def start(processes: int, arguments: Sequence[str]) -> None:
    """The same run, by so many processes of this machine."""
    from compress.launch import launch

    try:
        code = launch(processes, [sys.executable, "-m", "compress", "run", *arguments])
    except KeyboardInterrupt:
        raise typer.Exit(STOPPED) from None
    raise typer.Exit(code)


def follow_along(recipe: Recipe, folder: Path, shard: bool) -> None:
    """The part of a run that is for the other processes."""
    from compress.processes import LostError, follow

    try:
        follow(recipe, folder, shard)
    except KeyboardInterrupt:
        raise typer.Exit(STOPPED) from None
    except LostError as error:
        if error.is_told_here:
            raise
        raise typer.Exit(USER_ERROR) from None


def stopped() -> typer.Exit:
    print("stopped; the same command goes on from here", file=sys.stderr)
    return typer.Exit(STOPPED)


def tell_launcher(error: Exception) -> None:
    """Have torchrun say in its summary what was wrong, in the place of a traceback that it does not know."""
    if _ERROR_FILE not in os.environ:
        return
    hint = f"; hint: {error.hint}" if isinstance(error, LimbeckError) and error.hint else ""
    extra = {"timestamp": str(int(time.time()))}
    content = {"message": {"message": f"{said(error)}{hint}", "extraInfo": extra}}
    Path(os.environ[_ERROR_FILE]).write_text(json.dumps(content))
