"""optimize.html: a search for the model that keeps the limits, on one page, in the report's style."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compress.evidence.statistics import accuracy_interval
from compress.optimize.records import PAGE, Record, Trial
from compress.optimize.wording import limits
from compress.report import svg, wording
from compress.report.pareto import Point, Words, pareto
from compress.report.render import render_optimizing
from compress.report.schema import Report
from compress.report.tables import Cell, Column, Row, Table, row, table
from compress.report.view import Chart
from compress.rundir import write_text

_BY_LATENCY = Words(
    ident="latency",
    title="Accuracy on validation against latency",
    upwards="Accuracy on validation, %",
)
_BY_SIZE = Words(
    ident="size",
    title="Accuracy on validation against size",
    across="Size of the package, MB",
    upwards="Accuracy on validation, %",
    front="the smallest first",
)
_STEPS = {
    "shape": "Latency and size before training",
    "training": "Training students",
    "package": "Export and quantization",
    "timing": "Timing",
    "validation": "Scoring validation",
}
Tone = Literal["", "good", "bad", "quiet"]
_SIGNS = {"complete": "✕ infeasible", "screened": "never trained", "omitted": "no time left"}  # others by their state


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    name: str
    accepted: bool
    headline: str
    byline: tuple[str, ...]
    asked: str
    choice_reason: str
    ended: str
    nearest: str
    latency: Chart | None
    size: Chart | None
    trials: Table
    costs: Table
    space: Table | None


def write_page(record: Record, report: Report, folder: Path) -> None:
    """Write optimize.html into `folder`."""
    write_text(folder / PAGE, render_optimizing(page_of(record, report)))


def page_of(record: Record, report: Report) -> Page:
    """The page of a search that ended with this report on test."""
    complete = [trial for trial in record.trials if trial.state == "complete"]
    return Page(
        name=record.name,
        accepted=report.selected is not None,
        headline=report.verdict,
        byline=_byline(record),
        asked=wording.capital(limits(record)),
        choice_reason=record.choice_reason or "",
        ended=record.ended,
        nearest=_nearest(record),
        latency=_chart([_point(record, trial, trial.p50_ms) for trial in complete], _BY_LATENCY),
        size=_chart([_point(record, trial, (trial.size_bytes or 0) / 1e6) for trial in complete], _BY_SIZE),
        trials=_trials(record),
        costs=_costs(record),
        space=_space(record),
    )


def _byline(record: Record) -> tuple[str, ...]:
    trained = {trial.model for trial in record.trials if trial.epochs}
    spent, budget = wording.duration(record.spent_seconds), wording.duration(record.budget_seconds)
    return (
        f"{record.name}: {record.teacher} on {record.source}",
        f"{wording.plural(len(record.trials), 'trial')}, {wording.plural(len(trained), 'student')} trained",
        f"{spent} of {budget}: {record.ended}",
    )


def _nearest(record: Record) -> str:
    found = next((trial for trial in record.trials if trial.id == record.nearest), None)
    if found is None:
        return "Every trial that was trained to its end is feasible."
    over = found.excess or 0.0
    beyond = f", {100 * over:.0f} % beyond the limit that it breaks most" if over > 0 else ""
    return f"{found.id} came nearest of those that are not feasible{beyond}: {found.why}."


def _point(record: Record, trial: Trial, across: float | None) -> Point:
    n, accuracy = record.validation_items, trial.accuracy or 0.0
    low, high = accuracy_interval(round(accuracy * n), n)
    marks = {record.selected: "selected", record.nearest: "nearest"}
    mark = marks.get(trial.id) or ("choice" if trial.id == record.choice else None)
    role = "teacher" if trial.model == "teacher" else "student"
    return Point(trial.id, across or 0.0, 100 * accuracy, 100 * low, 100 * high, role, (mark,) if mark else ())


def _chart(points: list[Point], words: Words) -> Chart | None:
    wide, narrow = (pareto(points, width, words) for width in (svg.WIDE, svg.NARROW))
    return None if wide is None or narrow is None else Chart(wide, narrow)


def _trials(record: Record) -> Table:
    columns: list[str | Column] = [
        "Trial",
        Column("Outcome", numeric=False),
        "Accuracy, %",
        "Drop, points",
        "p50, ms",
        "p95, ms",
        "Size",
        "Epochs",
        "Cost",
    ]
    rows = [_trial_row(record, trial) for trial in record.trials]
    return table("Every trial, by number", columns, rows, kind="dense trials")


def _trial_row(record: Record, trial: Trial) -> Row:
    sign = "✓ feasible" if trial.feasible else _SIGNS.get(trial.state, trial.state)
    tone: Tone = "good" if trial.feasible else "bad" if trial.state in ("complete", "failed") else "quiet"
    why = "" if trial.feasible else trial.why
    interval = upper = ""
    if trial.drop_low is not None and trial.drop_high is not None:
        interval = wording.interval(trial.drop_low, trial.drop_high)
        upper = f"; on test up to {wording.fixed(trial.drop_upper)}"
        upper += "" if trial.chance is None else f", within the margin at {wording.percent(trial.chance, 0)}"
    setting = [wording.plural(trial.threads, "thread")] if trial.threads > 1 else []
    setting += [f"graph {trial.graph_level}"] if trial.graph_level != "all" else []
    setting += ["before training"] if trial.measured_untrained else []
    options = ", ".join(f"{name} {value}" for name, value in trial.options.items())
    epochs = f"{trial.epochs} of {trial.epochs_in_all}" if trial.epochs_in_all else wording.MISSING
    return row(
        Cell(f"{trial.number}. {trial.id}", ", ".join(part for part in (trial.source, options) if part)),
        Cell(sign, why, tone=tone),
        wording.percent(trial.accuracy, unit=False),
        Cell(wording.fixed(trial.drop_points), interval + upper),
        Cell(wording.significant(trial.p50_ms), ", ".join(setting)),
        wording.significant(trial.p95_ms),
        wording.size(trial.size_bytes),
        epochs,
        wording.duration(trial.cost),
        marks=("choice",) if trial.id == record.choice else (),
    )


def _costs(record: Record) -> Table:
    sums = {step: _sum(trial.seconds.get(step, 0.0) for trial in record.trials) for step in _STEPS}
    rest = record.spent_seconds - sum(sums.values())
    rows = [row(_STEPS[step], wording.duration(seconds)) for step, seconds in sums.items() if seconds]
    rows.append(row("The teacher, and what lies between", wording.duration(max(rest, 0.0))))
    rows.append(row("The search", wording.duration(record.spent_seconds), marks=("total",)))
    rows.append(row("The pass over test, and what led to it", wording.duration(record.confirm_seconds)))
    return table("Where the time went", ("Step", "Time"), rows)


def _space(record: Record) -> Table | None:
    rows = []
    for student in record.optimize.get("students", []):
        models = student["model"] if isinstance(student["model"], list) else [student["model"]]
        options = "; ".join(
            f"{name}: {' or '.join(map(str, value)) if isinstance(value, list) else value}"
            for name, value in student.get("options", {}).items()
        )
        epochs = str(student["fit"]["epochs"])
        rows.append(row(student["name"], " or ".join(models), options or wording.MISSING, epochs))
    columns = ("Name", Column("Model", numeric=False), Column("Options", numeric=False), "Epochs")
    return table("Students in the space", columns, rows) if rows else None


def _sum(values: Iterable[float]) -> float:
    return float(sum(values))
