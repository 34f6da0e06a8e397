"""The `limbeck` command. Heavy imports happen inside the commands, so that --help answers at once."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from compress.cli import beginning, cleaning, data, kernels, kernels_gpu, repeating, reporting, serving, shipping
from compress.cli.complete import recipes, runs
from compress.cli.running import (
    follow_along,
    lead,
    leads,
    refuse_launcher,
    show,
    start,
    stopped,
    tell_launcher,
    told_once,
)
from compress.cli.shared import (
    BUG,
    DONE,
    NOTHING_MET,
    USER_ERROR,
    Changes,
    Debug,
    RecipeFile,
    examples,
    own_recipe,
)
from serve.errors import LimbeckError, UserError

app = typer.Typer(
    help="Distill a large classifier into a small fast one, prove what it is worth, and serve it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config = typer.Typer(help="About recipes.", no_args_is_help=True)
app.add_typer(beginning.app)
app.add_typer(reporting.app)
app.add_typer(repeating.app)
app.add_typer(config, name="config")
app.add_typer(data.app, name="data")
kernels.app.add_typer(kernels_gpu.app)
app.add_typer(kernels.app, name="kernels")
app.add_typer(serving.app)
app.add_typer(cleaning.app)
app.add_typer(shipping.app)


@app.command(
    epilog=examples(
        "limbeck run digits",
        "limbeck run recipe.toml --dry-run",
        "limbeck run recipe.toml --set teacher.fit.epochs=3 --out runs/short",
    )
)
def run(
    recipe: RecipeFile,
    out: Annotated[Path | None, typer.Option(help="The run directory. [default: runs/NAME]")] = None,
    changes: Changes = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write the curves of what is trained into RUN/tensorboard.")
    ] = False,
    processes: Annotated[
        int, typer.Option(min=1, help="Train in so many processes on this machine, each on a GPU of its own.")
    ] = 1,
    shard: Annotated[
        bool, typer.Option("--shard", help="Split each model over all processes while it is trained.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print the resolved recipe, then stop.")] = False,
    debug: Debug = False,
) -> None:
    """Train, distill, compress, evaluate and report.

    The same command goes on where it was stopped, and redoes only what changed.

    Exit code 3: everything was done, but the choice does not meet the constraints.
    """
    from compress.launch import check_count
    from compress.processes import check_together
    from compress.recipe_file import load_recipe

    with told_once():
        if processes > 1:
            check_count(processes)
        resolved = load_recipe(recipe, changes)
        check_together(resolved, shard, processes if processes > 1 else None)
    folder = out or Path("runs") / resolved.name
    if dry_run:
        if leads():
            show(resolved, folder)
    elif processes > 1:
        flags = [
            name for name, given in (("--tensorboard", tensorboard), ("--shard", shard), ("--debug", debug)) if given
        ]
        start(processes, [str(recipe), "--out", str(folder), *(f"--set={change}" for change in changes or ()), *flags])
    elif leads():
        lead(resolved, folder, tensorboard, shard)
    else:
        follow_along(resolved, folder, shard)


@app.command(
    epilog=examples(
        "limbeck tune recipe.toml --trials 30",
        "limbeck tune recipe.toml --teacher-from runs/reviews",
    )
)
def tune(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe with a [tune] table.", autocompletion=recipes, callback=own_recipe)
    ],
    out: Annotated[Path | None, typer.Option(help="The folder of the search. [default: runs/NAME-tune]")] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Where trials are kept: a journal file, or e.g. sqlite:///tune.db. [default: in the folder]"),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="How many trials in all. [default: the recipe's tune.trials]")
    ] = None,
    teacher_from: Annotated[
        Path | None,
        typer.Option(
            help="A run whose trained teacher to take. [default: it is trained]", metavar="RUN", autocompletion=runs
        ),
    ] = None,
    changes: Changes = None,
    debug: Debug = False,
) -> None:
    """Search for good values of the recipe's fields.

    The same command goes on where it was stopped, and shares the work when it is started twice. Judged on validation,
    or on folds; test and calibration are never looked at.
    """
    refuse_launcher("tune", "start it without torchrun, as often as there are devices: they share the trials")
    from compress.console import Console
    from compress.tune.command import tune as tune_recipe
    from compress.tune.results import BEST, PAGE

    wanted = (*(changes or ()), *(() if trials is None else (f"tune.trials={trials}",)))
    try:
        folder, note = tune_recipe(recipe, out, storage, wanted, teacher_from, Console().say)
    except KeyboardInterrupt:
        raise stopped() from None
    print(note)
    print(f"report: {folder / PAGE}")
    if (folder / BEST).exists():
        print(f"run it: limbeck run {folder / BEST}")


@app.command(
    epilog=examples(
        "limbeck optimize recipe.toml --max-drop 1 --max-p95 5 --max-size 20",
        "limbeck optimize recipe.toml --budget 1h30m --prefer size",
        "limbeck optimize --model hf:my-model-folder --data csv:reviews.csv",
    )
)
def optimize(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            help="A recipe; its [optimize] may say what to search.", autocompletion=recipes, callback=own_recipe
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Instead of a recipe, a trained model, e.g. run:runs/digits, hf:FOLDER. [default: the recipe's]"
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="The data for --model, e.g. csv:reviews.csv, or a path. [default: those of its run]"),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Percentage points that may be lost, at 97.5 % confidence. [default: the recipe's; for --model 2]"
        ),
    ] = None,
    max_p95: Annotated[
        float | None, typer.Option(help="Milliseconds from bytes to label, 95th percentile. [default: any]")
    ] = None,
    max_size: Annotated[float | None, typer.Option(help="Megabytes of the package. [default: any]")] = None,
    prefer: Annotated[
        str | None, typer.Option(help="latency or size: of what keeps the limits, the best. [default: latency]")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Time to search in, e.g. 45s, 30m, 1h30m. [default: 30m]")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of the search. [default: runs/NAME-optimize]")] = None,
    changes: Changes = None,
    debug: Debug = False,
) -> None:
    """Search for the fastest or smallest model within limits.

    Tries students, precisions and runtime settings. Judged on validation; then the choice alone is judged on test,
    once. The same command goes on where it was stopped. Exit code 3: nothing met the limits; what came nearest is
    written all the same.
    """
    refuse_launcher("optimize", "start it without torchrun or accelerate launch")
    from compress.console import Console
    from compress.optimize.command import Asked
    from compress.optimize.command import optimize as search
    from compress.optimize.wording import told

    limits = {"max_drop_points": max_drop, "max_p95_ms": max_p95, "max_size_mb": max_size, "prefer": prefer}
    given = {name: value for name, value in limits.items() if value is not None}
    command = shlex.join(["limbeck", *sys.argv[1:]])
    try:
        outcome = search(Asked(recipe, model, data, out, changes or (), given, budget, command), Console())
    except KeyboardInterrupt:
        raise stopped() from None
    print(told(outcome.folder, outcome.record))
    if outcome.record.selected is None:
        raise typer.Exit(NOTHING_MET)


@config.command(epilog=examples("limbeck config schema > recipe.schema.json"))
def schema() -> None:
    """Print the JSON schema of a recipe, for editors."""
    import json

    from compress.recipe import Recipe

    print(json.dumps(Recipe.model_json_schema(), indent=2))


def main() -> NoReturn:
    """The console script: one line and a hint for what the user can mend, a traceback only with --debug."""
    debug = "--debug" in sys.argv
    try:
        app()
    except UserError as error:
        _explain(error, debug)
        sys.exit(USER_ERROR)
    except Exception as error:
        _explain(error, debug)
        if not isinstance(error, LimbeckError):
            print("hint: this is a bug in limbeck; the same command with --debug shows where", file=sys.stderr)
        sys.exit(BUG)
    sys.exit(DONE)


def _explain(error: Exception, debug: bool) -> None:
    tell_launcher(error)
    if debug:
        raise error
    name = "" if isinstance(error, LimbeckError) else f"{type(error).__name__}: "
    print(f"error: {name}{error}", file=sys.stderr)
    if isinstance(error, LimbeckError) and error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


if __name__ == "__main__":
    main()
