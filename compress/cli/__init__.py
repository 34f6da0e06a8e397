"""The `limbeck` command. Heavy imports happen inside the commands, so that --help answers at once."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from compress.cli import beginning, cleaning, data, kernels, kernels_gpu, reporting, serving, shipping
from compress.cli.complete import recipes, runs
from compress.cli.shared import (
    BUG,
    DONE,
    NOTHING_MET,
    STOPPED,
    USER_ERROR,
    Changes,
    Debug,
    RecipeFile,
    examples,
    own_recipe,
)
from serve.errors import LimbeckError, UserError

if TYPE_CHECKING:
    from compress.recipe import Recipe

_LAUNCHER_SECONDS = 60  # in which a launcher has noticed that a process failed, also on a busy machine

app = typer.Typer(
    help="Distill a large classifier into a small fast one, prove what it is worth, and serve it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config = typer.Typer(help="About recipes.", no_args_is_help=True)
app.add_typer(beginning.app)
app.add_typer(reporting.app)
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
    shard: Annotated[
        bool, typer.Option("--shard", help="Split each model over all processes of torchrun while it is trained.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print the resolved recipe, then stop.")] = False,
    debug: Debug = False,
) -> None:
    """Train, distill, compress, evaluate and report.

    The same command goes on where it was stopped, and redoes only what changed.

    Exit code 3: everything was done, but the choice does not meet the constraints.
    """
    from compress.processes import check_together
    from compress.recipe_file import load_recipe

    with _told_once():
        resolved = load_recipe(recipe, changes)
        check_together(resolved, shard)
    folder = out or Path("runs") / resolved.name
    if not _leads():
        _follow(resolved, folder, shard, dry_run)
        return
    if dry_run:
        import tomli_w

        print(tomli_w.dumps(resolved.model_dump(mode="json", exclude_none=True)), end="")
        print(f"checked; would run in {folder}", file=sys.stderr)
        return
    from compress.console import Console
    from compress.pipeline import run as run_recipe

    try:
        command = shlex.join(["limbeck", *sys.argv[1:]])
        report = run_recipe(resolved, folder, Console(), command, tensorboard, shard)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(STOPPED) from None
    print(report.verdict)
    print(f"report: {folder / 'report.html'}")
    if report.selected is None:
        raise typer.Exit(NOTHING_MET)
    print(f"serve it: limbeck serve {folder}")


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
    """Run a recipe with several seeds, and say how much they differ.

    Each model's figures are averaged over the seeds, with their spread. Each seed is a run of its own, in seed-N of the
    folder; the same command goes on where it was stopped.
    """
    _refuse_launcher("repeat", "start it without torchrun or accelerate launch")
    from compress.console import Console
    from compress.repeat import SEEDS_JSON, read_seeds, table
    from compress.repeat import repeat as repeat_recipe

    wanted = read_seeds(seeds)
    try:
        command = shlex.join(["limbeck", *sys.argv[1:]])
        folder, together = repeat_recipe(recipe, wanted, out, changes or (), command, Console())
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(STOPPED) from None
    print(table(together))
    print(f"\n{folder / SEEDS_JSON}")


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
    _refuse_launcher("tune", "start it without torchrun, as often as there are devices: they share the trials")
    from compress.console import Console
    from compress.tune.command import tune as tune_recipe
    from compress.tune.results import BEST, PAGE

    wanted = (*(changes or ()), *(() if trials is None else (f"tune.trials={trials}",)))
    try:
        folder, note = tune_recipe(recipe, out, storage, wanted, teacher_from, Console().say)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(STOPPED) from None
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
    _refuse_launcher("optimize", "start it without torchrun or accelerate launch")
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
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(STOPPED) from None
    print(told(outcome.folder, outcome.record))
    if outcome.record.selected is None:
        raise typer.Exit(NOTHING_MET)


@config.command(epilog=examples("limbeck config schema > recipe.schema.json"))
def schema() -> None:
    """Print the JSON schema of a recipe, for editors."""
    import json

    from compress.recipe import Recipe

    print(json.dumps(Recipe.model_json_schema(), indent=2))


def _refuse_launcher(command: str, hint: str) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        with _told_once():
            raise UserError(f"`limbeck {command}` trains in one process; several are for `limbeck run`", hint)


@contextmanager
def _told_once() -> Iterator[None]:
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


def _leads() -> bool:
    """Whether this process prints and writes: the only one, or the first that torchrun or accelerate started."""
    return int(os.environ.get("RANK", "0")) == 0


def _follow(recipe: Recipe, folder: Path, shard: bool, dry_run: bool) -> None:
    """The part of a run that is for the other processes."""
    from compress.processes import follow

    if dry_run:
        return
    try:
        follow(recipe, folder, shard)
    except KeyboardInterrupt:
        raise typer.Exit(STOPPED) from None


def main() -> NoReturn:
    """The console script: one line and a hint for what the user can mend, a traceback only with --debug."""
    debug = "--debug" in sys.argv
    try:
        app()
    except UserError as error:
        _explain(error, debug)
        sys.exit(USER_ERROR)
    except Exception as error:
        if debug:
            raise
        _explain(error, debug)
        if not isinstance(error, LimbeckError):
            print("hint: this is a bug in limbeck; the same command with --debug shows where", file=sys.stderr)
        sys.exit(BUG)
    sys.exit(DONE)


def _explain(error: Exception, debug: bool) -> None:
    if debug:
        raise error
    name = "" if isinstance(error, LimbeckError) else f"{type(error).__name__}: "
    print(f"error: {name}{error}", file=sys.stderr)
    if isinstance(error, LimbeckError) and error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


if __name__ == "__main__":
    main()
