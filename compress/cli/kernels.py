"""`limbeck kernels compile`, `doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress.cli.shared import NOTHING_MET, Debug, examples

if TYPE_CHECKING:
    from rich.table import Table

    from kernels.ahead import Resources
    from kernels.ahead_lane import Compiled

_WIDE = 500  # characters: no table is wider
app = typer.Typer(help="About the fused GPU kernels.", no_args_is_help=True)


@app.command("compile", epilog=examples("limbeck kernels compile --sample", "limbeck kernels compile --arch 90"))
def compile_kernels(
    arch: Annotated[
        list[int] | None, typer.Option("--arch", help="80, 90 or 100 for sm_80, sm_90 or sm_100. [default: all]")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A kernel, e.g. distill_loss. [default: all]")
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="One configuration of each kernel.")] = False,
    launches: Annotated[
        bool, typer.Option("--launches", help="Each kernel as odd launches ask for it: it must only compile.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write all figures as JSON. [default: no file]")
    ] = None,
    debug: Debug = False,
) -> None:
    """Compile every configuration, without a GPU.

    Shows registers, spills, shared memory, vector loads and tensor cores.

    Exit code 3: a configuration spills, needs too much shared memory, or lacks instructions that it should have.
    """
    from kernels import ahead_lane, ahead_launches, catalog
    from kernels.ahead import ARCHS
    from serve.errors import UserError

    if reason := ahead_lane.why_not_here():
        raise UserError(f"no kernel can be compiled: {reason}", "a plain Linux installation, TRITON_INTERPRET unset")
    archs = tuple(arch or ARCHS)
    if unknown := [each for each in archs if each not in ARCHS]:
        raise UserError(f"--arch {unknown[0]} is not known", f"expected one of {', '.join(map(str, ARCHS))}")
    stems = chosen(only)
    builds = [build for build in catalog.builds() if not only or build.name.split()[0] in stems]
    builds = ahead_lane.sample(builds) if sample else builds
    builds = ahead_launches.launches(builds) if launches else builds
    done = ahead_lane.compile_all(builds, archs, tell=_warn)
    print_table(_table_of_builds(done))
    if out is not None:
        ahead_lane.write(done, out)
        print(out)
    wrong = sum(bool(each.wrong) for each in done)
    print(f"{len(done)} compiled, {wrong} with complaints")
    if wrong:
        raise typer.Exit(NOTHING_MET)


@app.command(epilog=examples("limbeck kernels doctor"))
def doctor(debug: Debug = False) -> None:
    """Say which kernels this machine would use.

    Of the others, why not; of all, whether their sizes are tuned for this GPU.
    """
    from kernels.doctor import examine
    from kernels.machine import this_machine

    machine = this_machine()
    table = new_table("kernel", "runs as", "tuned for this GPU", "why")
    for line in examine(machine):
        table.add_row(line.kernel, line.lane, line.tuned, line.why)
    print(f"GPU: {machine.gpu or 'none'}, torch {machine.torch}, Triton {machine.triton or 'none'}")
    print_table(table)


def chosen(only: list[str] | None) -> list[str]:
    """The kernels that are named, or all. Raises UserError for an unknown name."""
    from kernels import catalog
    from serve.errors import UserError, did_you_mean

    stems = catalog.stems()
    for name in only or ():
        if name not in stems:
            raise UserError(f"there is no kernel {name!r}", did_you_mean(name, stems))
    return only or stems


def _table_of_builds(done: list[Compiled]) -> Table:
    table = new_table("configuration", "arch", "registers", "spilled", "shared", "vector loads", "tensor cores", "")
    for each in done:
        found = each.found
        figures = ("-",) * 5 if found is None else _figures(found)
        table.add_row(each.build, f"sm_{each.arch}", *figures, "!!" if each.wrong else "ok")
    return table


def _figures(found: Resources) -> tuple[str, ...]:
    numbers = (found.registers, found.spilled_bytes, found.shared_bytes, found.vector_loads, found.mma)
    return tuple(map(str, numbers))


def _warn(compiled: Compiled) -> None:
    for complaint in compiled.wrong:
        print(f"!! {complaint}", file=sys.stderr)


def new_table(*columns: str) -> Table:
    """An empty table as all commands here print them."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def print_table(table: Table) -> None:
    """On a terminal as wide as it is, elsewhere as wide as the table."""
    from rich.console import Console

    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=_WIDE)).print(table)
