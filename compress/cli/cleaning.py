"""`limbeck clean`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from compress.cli.complete import runs
from compress.cli.shared import Debug, examples
from serve.errors import UserError

app = typer.Typer()


@app.command(epilog=examples("limbeck clean --dry-run", "limbeck clean runs/digits --checkpoints --caches --yes"))
def clean(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Runs, or folders of them. [default: runs]", metavar="[RUN]...", autocompletion=runs),
    ] = None,
    checkpoints: Annotated[bool, typer.Option("--checkpoints", help="What stopped trainings left. [default]")] = False,
    caches: Annotated[bool, typer.Option("--caches", help="What searches trained on their way, and curves.")] = False,
    weights: Annotated[bool, typer.Option("--weights", help="Trained models; packages stay.")] = False,
    whole: Annotated[bool, typer.Option("--all", help="The runs themselves, packages and reports included.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, then stop.")] = False,
    debug: Debug = False,
) -> None:
    """Show what can be deleted of runs, and delete it.

    Nothing is deleted before you say so. Nothing is deleted of a run that is in progress, nothing outside of the runs,
    and nothing behind a link.
    """
    from compress import cleaning
    from compress.report.wording import size

    chosen = {cleaning.CHECKPOINTS: checkpoints, cleaning.CACHES: caches, cleaning.WEIGHTS: weights}
    kinds = [cleaning.WHOLE] if whole else [kind for kind, wanted in chosen.items() if wanted] or [cleaning.CHECKPOINTS]
    runs = [run for folder in folders or [Path("runs")] for run in cleaning.find_runs(folder)]
    found = cleaning.find(dict.fromkeys(runs), kinds)
    for kind in kinds:
        print(f"{kind}: {cleaning.COSTS[kind]}")
        print(
            "".join(f"  {each.path}  {size(each.size_bytes)}\n" for each in found if each.kind == kind) or "  none\n",
            end="",
        )
    total = size(sum(each.size_bytes for each in found))
    if not found or dry_run:
        print(f"{total} would be freed" if found else "nothing to delete")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(
                "nobody is there to be asked whether to delete this", "say --yes, or --dry-run to look only"
            )
        if not typer.confirm(f"delete {total}?"):
            print("nothing was deleted")
            return
    print(f"freed {size(cleaning.delete(found))}")
