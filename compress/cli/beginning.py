"""`limbeck init`, `doctor`: what comes before the first run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.cli.shared import USER_ERROR, Debug, examples

app = typer.Typer()


@app.command(
    epilog=examples(
        "limbeck init reviews.csv",
        "limbeck init photos/ --out photos.toml",
        "limbeck init reviews.csv --teacher hf:my-model-folder --force",
    )
)
def init(
    path: Annotated[
        Path, typer.Argument(help="A CSV, JSONL or Parquet file, a folder of these, or a folder of images.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The recipe to write.")] = Path("recipe.toml"),
    name: Annotated[str | None, typer.Option(help="The recipe's name. [default: that of the file or folder]")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="The teacher, e.g. hf:FOLDER. [default: one that fits the data]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the recipe if it is there.")] = False,
    timed: Annotated[
        bool, typer.Option("--estimate/--no-estimate", help="Time a few batches, to say how long a run takes here.")
    ] = True,
    debug: Debug = False,
) -> None:
    """Look at data, and write a commented recipe for it.

    Says what it chose and why, and how long a run takes on this machine.
    """
    from compress.init.write import how_long, say
    from compress.init.write import init as write_recipe

    print(say(write_recipe(path, out, name, teacher, force), out))
    if timed:
        print(how_long(out))


@app.command(epilog=examples("limbeck doctor"))
def doctor(debug: Debug = False) -> None:
    """Check this installation for what is known to go wrong."""
    from compress.doctor import examine

    if not examine():
        raise typer.Exit(USER_ERROR)
