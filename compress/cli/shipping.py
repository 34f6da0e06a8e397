"""`limbeck bento`, `limbeck k8s`: what is served, as others run it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.cli.shared import Debug

app = typer.Typer()

_Target = Annotated[
    Path | None, typer.Argument(help="A run or a model package. [default: the newest run with a selection]")
]


@app.command()
def bento(
    target: _Target = None,
    name: Annotated[str | None, typer.Option(help="The Bento's name. [default: limbeck-FOLDER]")] = None,
    debug: Debug = False,
) -> None:
    """Build a Bento: the server, one model package and the versions of what they need; no torch, nothing of the run.

    `bentoml serve TAG` runs it, `bentoml containerize TAG` makes an image of it.
    """
    from compress.bento import build_bento
    from compress.report.wording import size

    built = build_bento(target, name)
    inside = f"the model package {size(built.package_bytes)}, {len(built.requirements)} requirements pinned"
    print(f"{built.tag}: {size(built.size_bytes)} ({inside})")
    print(built.path)
    print(f"serve it: bentoml serve {built.tag}")
    print(f"an image of it: bentoml containerize {built.tag}")
