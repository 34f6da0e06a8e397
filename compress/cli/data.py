"""`limbeck data check`, `limbeck data preview`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.cli.complete import models, recipes
from compress.cli.shared import USER_ERROR, Debug, RecipeFile

app = typer.Typer(help="About data.", no_args_is_help=True)


@app.command()
def check(
    target: Annotated[
        str,
        typer.Argument(
            help="A recipe, a source such as csv:reviews.csv, or a path.",
            metavar="RECIPE-or-SOURCE",
            autocompletion=recipes,
        ),
    ],
    debug: Debug = False,
) -> None:
    """Show how the data would be split, and each problem with file and row.

    Exit code 0: a run would accept the data; 2: it would refuse it.
    """
    from compress.datacheck import check_data

    if not check_data(target):
        raise typer.Exit(USER_ERROR)


@app.command()
def preview(
    recipe: RecipeFile,
    model: Annotated[
        str | None, typer.Option(help="teacher, or a student's name. [default: all]", autocompletion=models)
    ] = None,
    rows: Annotated[int, typer.Option(min=1, max=1000, help="How many rows of the training split.")] = 12,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("preview.html"),
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, e.g. --set teacher.fit.augment.swap=0.1."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a page with rows of the training split as they are and as training sees them, augmented."""
    from compress.preview import write_preview
    from compress.recipe_file import load_recipe

    resolved = load_recipe(recipe, changes)
    page = write_preview(resolved, Path("runs") / resolved.name, out, model, rows)
    print(page.nothing or f"augmented: {', '.join(name for part in page.sections for name in part.models)}")
    print(out)
