"""`limbeck report`: a run's pages again, or two runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.cli.complete import runs
from compress.cli.shared import Debug, examples
from serve.errors import UserError

app = typer.Typer()


@app.command(
    epilog=examples(
        "limbeck report runs/digits --open",
        "limbeck report --compare runs/before runs/after --open",
    )
)
def report(
    folder: Annotated[
        Path | None,
        typer.Argument(help="A run directory, e.g. runs/digits.", metavar="RUN", autocompletion=runs),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare", metavar="RUN RUN", help="Two runs on the same test items, side by side. [default: one run]"
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    debug: Debug = False,
) -> None:
    """Write a run's pages again, or compare two runs.

    report.html, report.md and MODEL_CARD.md are made again from report.json, load tests included. With --compare, a
    page of two runs instead, their answers paired item by item, beside the second run's report.
    """
    if (folder is None) == (compare is None):
        raise UserError("limbeck report takes one run, or --compare and two", "for example: limbeck report runs/digits")
    if compare is not None:
        from compress.report.comparing import write_comparison

        found, page = write_comparison(*compare)
        print(found.headline)
    else:
        from compress.report.write import read_report, write_report

        assert folder is not None
        page = folder / "report.html"
        write_report(read_report(folder), folder)
    print(page)
    if show:
        _open(page)


def _open(page: Path) -> None:
    """In the user's browser; a machine without one is told where the page lies."""
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        raise UserError("no browser could be started here", f"open {page.resolve()} in one")
