"""`limbeck data check`, `limbeck data preview`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.cli.complete import models, recipes
from compress.cli.shared import USER_ERROR, Changes, Debug, RecipeFile, examples

app = typer.Typer(help="About data.", no_args_is_help=True)


@app.command(epilog=examples("limbeck data check recipe.toml", "limbeck data check reviews.csv"))
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
    """Show how data would be split, and what is wrong with them.

    Each problem with file and row. Exit code 0: a run would accept the data; 2: it would refuse it.
    """
    from compress.data.check import check_data

    if not check_data(target):
        raise typer.Exit(USER_ERROR)


@app.command(
    epilog=examples(
        "limbeck data preview recipe.toml",
        "limbeck data preview recipe.toml --set teacher.fit.augment.swap=0.1",
    )
)
def preview(
    recipe: RecipeFile,
    model: Annotated[
        str | None, typer.Option(help="teacher, or another model's name. [default: all]", autocompletion=models)
    ] = None,
    rows: Annotated[
        int, typer.Option(min=1, max=1000, help="How many rows of the training split; unlabelled ones: a third.")
    ] = 12,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("preview.html"),
    changes: Changes = None,
    debug: Debug = False,
) -> None:
    """Write a page of texts or images as training sees them.

    Rows of the training split as they are, and augmented; of [data.unlabelled] too, where students learn from it.
    """
    from compress.data.preview import write_preview
    from compress.recipe_file import load_recipe

    resolved = load_recipe(recipe, changes)
    page = write_preview(resolved, Path("runs") / resolved.name, out, model, rows)
    print(page.nothing or f"augmented: {', '.join(name for part in page.sections for name in part.models)}")
    print(out)
