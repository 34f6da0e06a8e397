"""Each accepted package of a run under load, one after the other: the front of accuracy against requests/s."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compress.loadtest.measure import Asked, Say, loadtest
from compress.loadtest.others import payloads_by_row
from compress.report.loads import read_loads
from compress.report.schema import Report
from compress.report.write import read_report
from serve.errors import UserError


def loadtest_all(folder: Path, asked: Asked, say: Say = print) -> bool:
    """`loadtest` of each accepted package, the selection first; whether that one passed, or without one any.

    Each writes its file as soon as it is done, so a test that is stopped keeps what it has. Raises UserError.
    """
    report = read_report(folder)
    names = accepted(report)
    if not names:
        raise UserError(f"{folder} has no accepted package to load: {report.verdict}", "name one with --variant")
    if names != [report.choice.id]:
        payloads_by_row(folder)  # before hours go into the first of them
    passed = {}
    for at, name in enumerate(names, 1):
        say(f"{name}, {at} of {len(names)}")
        passed[name] = loadtest(folder, replace(asked, variant=name), say)
    rates = {load.variant: load.rate for load in read_loads(report, folder) if load.objective == asked.objective}
    say(f"requests/s that keep {asked.objective}:")
    for name in sorted(names, key=lambda name: -(rates.get(name) or 0)):
        rate = rates.get(name)
        say(f"  {name}: {'none' if rate is None else f'{rate:.0f}'}")
    return passed[report.selected] if report.selected in passed else any(passed.values())


def accepted(report: Report) -> list[str]:
    """The packages that met every constraint on test, the selection first; controls are there to compare with."""
    good = [
        variant.id
        for variant in report.variants
        if variant.verdict == "accepted" and variant.package_id is not None and variant.role != "control"
    ]
    return sorted(good, key=lambda name: name != report.selected)
