"""Where the figures come from: the data, the machine, the versions, and the command that makes them again."""

from __future__ import annotations

import math
import shlex
from itertools import pairwise
from typing import Any

from compress.report import wording
from compress.report.classes import label
from compress.report.schema import Report
from compress.report.tables import Cell, Column, Table, row, table

_FINGERPRINT = 12  # hex digits shown; 48 bits tell two data sets apart
_HARDWARE = {
    "cpu": "Processor",
    "cores": "Cores",
    "cpu_flags": "Processor features",
    "memory_gb": "Memory, GB",
    "gpu": "GPU",
    "system": "System",
}
_USES = {
    "train": "to fit the models",
    "calibration": "to set the ranges of static int8",
    "validation": "to rank candidates and choose",
    "test": "for the verdicts, once",
}
_USES_WITH_A_REFIT = {
    "calibration": "to set the ranges of static int8; to refit models",
    "validation": "to rank candidates and choose; then to refit models",
}


def splits_table(report: Report) -> Table:
    uses = {**_USES, **(_USES_WITH_A_REFIT if report.refits else {})}
    rows = [
        row(name, wording.whole(split.size), Cell(uses.get(name, "—")), fingerprint(split.fingerprint))
        for name, split in report.data.splits.items()
    ]
    columns: list[str | Column] = [
        "Split",
        "Items",
        Column("Used", numeric=False),
        Column("Fingerprint", numeric=False),
    ]
    return table("Disjoint splits, each named by a hash of its items and labels", columns, rows)


def data_notes(report: Report) -> list[str]:
    """What was left out of the data, a sentence each."""
    return [wording.sentence(" ".join(wording.clean(note).split())) for note in report.data.notes]


def fingerprint(text: str) -> str:
    return wording.clean(text)[:_FINGERPRINT]


def class_names(report: Report) -> list[str]:
    return [label(text) for text in report.data.labels]


def run_facts(report: Report) -> list[tuple[str, str]]:
    """What must be the same for the figures to come out the same."""
    run = report.run
    found = [
        ("Made", wording.moment(run.created)),
        ("Seed", str(run.seed)),
        ("Limbeck", run.limbeck + (f", commit {wording.clean(run.git_commit)[:12]}" if run.git_commit else "")),
        ("Versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
        *[(_HARDWARE.get(name, name), _spoken(value)) for name, value in run.hardware.items() if value is not None],
        ("Data", f"{report.data.source}, fingerprint {fingerprint(report.data.fingerprint)}"),
    ]
    return [(name, text) for name, text in found if text]


def command(report: Report) -> str:
    """The command line that made the run, or the form of it where it was not recorded."""
    return " ".join(wording.clean(report.run.command or "limbeck run RECIPE").split())


def machine(report: Report) -> str:
    """`AMD EPYC, 2 cores, 25.3 GB`; empty where nothing is known of it."""
    known = report.run.hardware
    parts = [str(known[key]) for key in ("cpu", "gpu") if known.get(key)]
    parts += [wording.plural(known["cores"], "core")] if isinstance(known.get("cores"), int) else []
    parts += [f"{_spoken(known['memory_gb'])}{wording.NBSP}GB"] if known.get("memory_gb") else []
    return ", ".join(parts)


def time_taken(report: Report) -> str:
    """How long all stages took together; empty where that was not recorded."""
    seconds = [one for one in report.run.stages.values() if math.isfinite(one)]
    return wording.duration(sum(seconds)) if seconds else ""


def measured_on(report: Report) -> str:
    """Machine and time of the run, in a sentence; empty where neither is known."""
    where, took = machine(report), time_taken(report)
    parts = [f"Measured on {where}" if where else "", f"the whole run took {took}" if took else ""]
    return wording.sentence("; ".join(part for part in parts if part)) if where or took else ""


def serve_command(report: Report) -> str:
    return f"limbeck serve {_folder(report)}"


def load_command(report: Report) -> str:
    """The command that makes the front of accuracy against requests a second; empty where it would have one point."""
    good = [one for one in report.variants if one.verdict == "accepted" and one.package_id and one.role != "control"]
    return "" if len(good) < 2 else f"limbeck loadtest {_folder(report)} --variant all"


def _folder(report: Report) -> str:
    """Where the run lies, by its command: --out, or the place that a recipe's name gives; quoted for a shell."""
    try:
        words = shlex.split(report.run.command or "")
    except ValueError:  # of an unclosed quotation
        words = []
    after = dict(pairwise(words))
    place = after.get("--out") or f"runs/{report.run.name}"
    return shlex.quote(" ".join(wording.clean(place).split()))


def stages_table(report: Report) -> Table | None:
    """Seconds of each stage; None where none was recorded."""
    stages = report.run.stages
    if not stages:
        return None
    rows = [row(name, wording.duration(seconds)) for name, seconds in stages.items()]
    total = sum(seconds for seconds in stages.values() if math.isfinite(seconds))
    return table("Time taken by each stage", ["Stage", "Took"], [*rows, row("all", wording.duration(total))])


def _spoken(value: Any) -> str:
    if isinstance(value, list | tuple | set):
        return ", ".join(str(item) for item in value) or "none"
    if isinstance(value, float):
        return wording.significant(value)
    return "none" if value is None else str(value)


def preprocessing_facts(report: Report) -> list[tuple[str, str]]:
    """The preprocessing of the choice, as its manifest has it."""
    found = report.preprocessing or {}
    return [(name.replace("_", " "), _spoken(value)) for name, value in found.items() if value is not None]
