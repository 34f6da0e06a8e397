"""`limbeck repeat` and `limbeck crossvalidate`: one recipe over several seeds, or over the folds of its data."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from compress.cli.running import refuse_launcher, stopped
from compress.cli.shared import NOTHING_MET, Changes, Debug, RecipeFile, examples

app = typer.Typer()


@app.command(
    epilog=examples(
        "limbeck repeat digits --seeds 0,1,2,3,4",
        "limbeck repeat recipe.toml --set teacher.fit.epochs=5",
    )
)
def repeat(
    recipe: RecipeFile,
    seeds: Annotated[str, typer.Option(help="Which seeds, with commas between them.")] = "0,1,2",
    out: Annotated[Path | None, typer.Option(help="The folder of the runs. [default: runs/NAME-seeds]")] = None,
    changes: Changes = None,
    debug: Debug = False,
) -> None:
    """Run a recipe with several seeds, and compare them.

    Each model's figures are averaged over the seeds, with their spread. Each seed is a run of its own, in seed-N of the
    folder; the same command goes on where it was stopped.
    """
    refuse_launcher("repeat", "start it without torchrun or accelerate launch")
    from compress.console import Console
    from compress.series.repeat import SEEDS_JSON, read_seeds, table
    from compress.series.repeat import repeat as repeat_recipe

    wanted = read_seeds(seeds)
    try:
        command = shlex.join(["limbeck", *sys.argv[1:]])
        folder, together = repeat_recipe(recipe, wanted, out, changes or (), command, Console())
    except KeyboardInterrupt:
        raise stopped() from None
    print(table(together))
    print(f"\n{folder / SEEDS_JSON}")


@app.command(
    epilog=examples(
        "limbeck crossvalidate recipe.toml",
        "limbeck crossvalidate digits --folds 10 --set accept.max_drop_points=1",
    )
)
def crossvalidate(
    recipe: RecipeFile,
    folds: Annotated[int, typer.Option(min=2, help="How many parts, stratified by class.")] = 5,
    out: Annotated[Path | None, typer.Option(help="The folder of the runs. [default: runs/NAME-folds]")] = None,
    changes: Changes = None,
    debug: Debug = False,
) -> None:
    """Run a recipe over folds of its data, judged together.

    Each item is judged once, by models that never saw it: for data so few that one test split shows little. Test is
    left out, for a last word. Each fold is a run of its own, in fold-N of the folder; the same command goes on where it
    was stopped.

    Exit code 3: what the folds chose is not shown to keep the margin, or breaks a limit on latency or size.
    """
    refuse_launcher("crossvalidate", "start it without torchrun or accelerate launch")
    from compress.console import Console
    from compress.series.crossvalidate import FOLDS_JSON, table
    from compress.series.crossvalidate import crossvalidate as run_folds

    try:
        command = shlex.join(["limbeck", *sys.argv[1:]])
        folder, together = run_folds(recipe, folds, out, changes or (), command, Console())
    except KeyboardInterrupt:
        raise stopped() from None
    print(table(together))
    print(f"\n{folder / FOLDS_JSON}")
    if together.choice.problems:
        raise typer.Exit(NOTHING_MET)
