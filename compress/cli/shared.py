"""What the commands have in common: exit codes, and the arguments that several of them take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DONE, BUG, USER_ERROR, NOTHING_MET, STOPPED = 0, 1, 2, 3, 130

RunFolder = Annotated[Path, typer.Argument(help="A run directory, for example runs/digits.", metavar="RUN")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
