"""tune.html: a search on one page, in the report's style."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from markupsafe import Markup

from compress.report import svg, wording
from compress.report.render import render_tuning
from compress.report.tables import Cell, Column, Table, row, table
from compress.report.tunecharts import Axis, coordinates, history, importance
from compress.report.view import Chart
from compress.rundir import write_text
from compress.tune.results import PAGE, Asked, judged, short_names, shown_value
from train.tuning.records import TrialRecord, best_of
from train.tuning.space import Choice, Range
from train.tuning.study import Search

IMPORTANCE_TRIALS = 10  # complete ones; with fewer a ranking of the fields would be chance


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    name: str
    headline: str
    byline: tuple[str, ...]
    note: str
    best: Table | None
    trials: Table
    history: Chart | None
    importance: Chart | None
    importance_note: str
    coordinates: Chart | None


def write_page(asked: Asked, records: list[TrialRecord], search: Search, folder: Path) -> None:
    """Write tune.html into `folder`."""
    write_text(folder / PAGE, render_tuning(page_of(asked, records, search)))


def page_of(asked: Asked, records: list[TrialRecord], search: Search) -> Page:
    """The page of these trials."""
    best, metric = best_of(records), judged(asked)
    shares, why = importance_of(records, search)
    complete = [record for record in records if record.value is not None]
    spots = [(record.number, float(record.value or 0)) for record in complete]
    # What a pruned trial reported is accuracy: beside macro F1 it would be on another scale.
    ended = [r for r in records if r.state == "pruned" and r.steps and (metric == "accuracy" or asked.config.folds)]
    pruned = [(record.number, list(record.steps.values())[-1]) for record in ended]
    names = short_names(search.space)
    axes = [_axis(name, search.space[field]) for field, name in names.items()]
    rows = [
        ({names[field]: _placed(value) for field, value in record.values.items()}, float(record.value or 0))
        for record in complete
    ]
    return Page(
        name=asked.name,
        headline=_headline(asked, best),
        byline=_byline(asked, records),
        note=asked.note.replace("`", ""),
        best=_best_table(best, asked),
        trials=_trials_table(asked, records, best),
        history=_both(lambda width: history(spots, pruned, metric, width)),
        importance=_both(lambda width: importance(shares, width)),
        importance_note=why,
        coordinates=_both(lambda width: coordinates(axes, rows, metric, width)),
    )


def importance_of(records: list[TrialRecord], search: Search) -> tuple[dict[str, float], str]:
    """The share of each field, and what is to be said of it. PED-ANOVA: Watanabe et al. 2023, arXiv 2304.10255."""
    complete = [record.value for record in records if record.value is not None]
    if len(complete) < IMPORTANCE_TRIALS:
        few = wording.plural(len(complete), "complete trial")
        return {}, f"{few}: too few to say which fields mattered; {IMPORTANCE_TRIALS} are needed at least."
    if len(set(complete)) == 1:
        return {}, "All trials came to the same value: no field mattered."
    if len(search.space) == 1:
        return {}, "Only one field was searched."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        shares = optuna.importance.get_param_importances(search.study, evaluator=evaluator)
    note = (
        f"How much the best tenth of {len(complete)} complete trials has values of its own (PED-ANOVA), as shares. "
        "From few trials it is a hint, no proof."
    )
    names = short_names(search.space)
    return {names[field]: share for field, share in shares.items()}, note


def _headline(asked: Asked, best: TrialRecord | None) -> str:
    if best is None:
        return f"No trial for {asked.config.model} of {asked.name} is complete."
    reached = f"{judged(asked)} {best.value:.4f} on {asked.judged_on}"
    return f"The best of the trials for {asked.config.model} reached {reached}."


def _byline(asked: Asked, records: list[TrialRecord]) -> tuple[str, ...]:
    counts = {state: sum(r.state == state for r in records) for state in ("complete", "pruned", "failed", "running")}
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    seconds = sum(record.seconds or 0 for record in records)
    parts = (asked.name, f"{asked.total} trials: {states}", f"{asked.config.sampler}, seed {asked.seed}")
    return (*parts, f"{wording.duration(seconds)} in trials")


def _best_table(best: TrialRecord | None, asked: Asked) -> Table | None:
    if best is None:
        return None
    rows = [
        row(field, shown_value(value), _searched(asked.config.search[field])) for field, value in best.values.items()
    ]
    columns = ("field", Column(f"trial {best.number}"), Column("searched", numeric=False))
    return table("Rounded; best.toml has all digits", columns, rows)


def _searched(entry: Any) -> str:
    if isinstance(entry, list):
        return ", ".join(map(shown_value, entry))
    step = f" in steps of {entry['step']:g}" if "step" in entry else ""
    return f"{entry['low']:g} to {entry['high']:g}{step}{', logarithmic' if entry.get('log') else ''}"


def _trials_table(asked: Asked, records: list[TrialRecord], best: TrialRecord | None) -> Table:
    fields = list(asked.config.search)
    rows = [
        row(
            str(record.number),
            Cell(record.state, detail=record.error or "", tone="bad" if record.state == "failed" else "quiet"),
            wording.MISSING if record.value is None else f"{record.value:.4f}",
            *(shown_value(record.values[field]) if field in record.values else wording.MISSING for field in fields),
            wording.duration(record.seconds),
            marks=("best",) if best is not None and record.number == best.number else (),
        )
        for record in records
    ]
    columns: list[str | Column] = [
        "trial",
        Column("state", numeric=False),
        judged(asked),
        *short_names(fields).values(),
        "time",
    ]
    return table("By number", columns, rows, kind="dense trials")


def _axis(name: str, entry: Range | Choice) -> Axis:
    if isinstance(entry, Choice):
        return Axis(name, words=tuple(str(_placed(value)) for value in entry.values))
    return Axis(name, entry.low, entry.high, entry.log)


def _placed(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else shown_value(value)


def _both(draw: Any) -> Chart | None:
    wide: Markup | None = draw(svg.WIDE)
    narrow: Markup | None = draw(svg.NARROW)
    return None if wide is None or narrow is None else Chart(wide, narrow)
