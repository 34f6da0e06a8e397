"""`limbeck kernels bench`, `tune`, `gpu`: what needs an NVIDIA GPU."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compress.cli.kernels import chosen, new_table, print_table
from compress.cli.shared import NOTHING_MET, Debug, examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernels.machine import Machine

app = typer.Typer()

Only = Annotated[list[str] | None, typer.Option("--only", help="A kernel, e.g. distill_loss. [default: all]")]


@app.command(epilog=examples("limbeck kernels bench", "limbeck kernels bench --only distill_loss --seconds 60"))
def bench(
    only: Only = None,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds after which no further case is begun.")] = 300,
    out: Annotated[Path, typer.Option("--out", "-o", help="The JSON file.")] = Path("runs/kernels/bench.json"),
    debug: Debug = False,
) -> None:
    """Measure the kernels on this GPU.

    Beside eager PyTorch, torch.compile and Liger, each first checked against fp64. Medians of 100 runs with a cold L2,
    beside the copy bandwidth and matrix rates of the same run. Exit code 3: a kernel is wrong, or did not reach its
    targets.
    """
    machine = _gpu("measured")
    import torch

    from kernels.bench import record
    from kernels.bench.catalog import cases
    from kernels.bench.measure import Bench
    from kernels.bench.roofline import measure_roofline
    from kernels.bench.timing import CudaTimer
    from kernels.machine import clocks

    wanted, device, deadline = cases(_benched(only)), torch.device("cuda"), time.monotonic() + seconds
    timer = CudaTimer()
    first = measure_roofline(timer, device)
    results = []
    for result in Bench(timer, first, device, deadline).measure(wanted):
        results.append(result)
        print(f"{result.case.title}{': ' + result.skipped if result.skipped else ''}", file=sys.stderr)
        record.write(record.as_json(results, first, None, machine, clocks()), out)
    last = measure_roofline(timer, device)
    record.write(record.as_json(results, first, last, machine, clocks()), out)
    _show(("case", "by", "median", "middle 60 %", "rate", "of the roof", "time", ""), record.times(results))
    _show(("target of", "wanted", "measured", "met"), record.targets(results, first, last))
    print(out)
    if not record.all_met(results):
        raise typer.Exit(NOTHING_MET)


@app.command(epilog=examples("limbeck kernels tune", "limbeck kernels tune --only distill_loss --seconds 60"))
def tune(
    only: Only = None,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds after which nothing further is tried.")] = 300,
    out: Annotated[Path | None, typer.Option(help="Where to write. [default: kernels/tuned, which is used]")] = None,
    copy_to: Annotated[
        Path | None, typer.Option(help="A folder that gets a copy of what was written. [default: none]")
    ] = None,
    debug: Debug = False,
) -> None:
    """Search the sizes with which each kernel is fastest here.

    They are written where the kernels read them.

    Exit code 3: a kernel is wrong or fails here even with its heuristic's sizes.
    """
    machine = _gpu("tuned")
    import torch

    from kernels import tuning
    from kernels.bench.catalog import cases
    from kernels.bench.search import Search
    from kernels.bench.timing import CudaTimer

    assert machine.arch is not None
    assert machine.gpu is not None
    named = {"torch": machine.torch, "triton": machine.triton, "driver": machine.driver}
    versions = {name: version for name, version in named.items() if version}
    search = Search(CudaTimer(), torch.device("cuda"), machine.arch, machine.gpu, versions, time.monotonic() + seconds)
    rows, failed = [], False
    for found in search.all(cases(_benched(only))):
        entry = found.entry
        if entry is None:
            failed = True
            print(*(f"!! {found.op}: {reason}" for reason in found.refused.values()), sep="\n", file=sys.stderr)
            continue
        path = tuning.write(entry.op.split()[0], [entry], out)
        if copy_to is not None:
            copy_to.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy_to)
        sizes = " ".join(f"{name}={value}" for name, value in entry.sizes.items())
        gain = f"{entry.heuristic_us / entry.median_us:.2f}x"
        rows.append((entry.op, entry.dtype, entry.bucket, sizes, f"{entry.median_us} us", gain, str(found.tried)))
        print(f"{entry.op} {entry.bucket}: {sizes}", file=sys.stderr)
    _show(("kernel", "dtype", "shape", "sizes", "median", "beside the heuristic", "tried"), rows)
    if failed:
        raise typer.Exit(NOTHING_MET)


@app.command(epilog=examples("limbeck kernels gpu --out runs/kernels"))
def gpu(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for all results.")] = Path("runs/kernels"),
    debug: Debug = False,
) -> None:
    """Do all that needs a GPU, in under 8 minutes.

    Check, tune, measure, and train end to end, each step bounded in time.

    Exit code 3: a step failed, was ended, or did not reach its targets.
    """
    _gpu("checked", starts_cuda=False)  # the steps have processes of their own
    from kernels.bench.steps import run_steps, steps

    folder = out.resolve()
    done = run_steps(steps(folder), folder, lambda text: print(text, file=sys.stderr))
    _show(("step", "outcome", "seconds"), [(each.name, each.outcome, f"{each.seconds:.0f}") for each in done])
    print(folder)
    if not all(each.well for each in done):
        raise typer.Exit(NOTHING_MET)


def _benched(only: list[str] | None) -> list[str]:
    """The kernels to measure. Raises UserError for a name that is not known, or has no benchmark."""
    from kernels.bench.catalog import benched
    from serve.errors import UserError

    known = benched()
    for name in chosen(only) if only else ():
        if name not in known:
            raise UserError(f"the kernel {name} has no benchmark", f"these have one: {', '.join(known)}")
    return only or known


def _gpu(done: str, starts_cuda: bool = True) -> Machine:
    """This machine, where Triton runs on it. Raises UserError elsewhere."""
    from kernels.machine import this_machine, why_no_triton
    from kernels.runtime import interprets
    from serve.errors import UserError

    machine = this_machine(starts_cuda)
    reason = why_no_triton(machine)
    if reason is None and interprets():
        reason = "TRITON_INTERPRET=1 is set"
    if reason is not None:
        hint = "it takes an NVIDIA GPU of compute capability 8.0 or newer; `limbeck kernels compile` needs none"
        raise UserError(f"no kernel can be {done} here: {reason}", hint)
    return machine


def _show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = new_table(*columns)
    for row in rows:
        table.add_row(*row)
    print_table(table)
