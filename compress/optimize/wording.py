"""What a person reads while a search goes on."""

from __future__ import annotations

from pathlib import Path

from compress.optimize.config import OptimizeConfig, StudentSpace
from compress.optimize.records import PAGE, RESOLVED, Record, Trial
from compress.recipe import Student
from compress.report import wording


def space_lines(record: Record, config: OptimizeConfig, own: list[Student]) -> list[str]:
    """What will be searched, before it is."""
    lines = [
        (
            f"searching {wording.plural(record.designs, 'student')} in {len(config.precisions or ())} precisions "
            f"({', '.join(config.precisions or ())}), for {wording.duration(record.budget_seconds)} at most; "
            f"{limits(record)}"
        )
    ]
    lines += [f"  {student.name}: {student.model}, of the recipe" for student in own]
    return lines + [f"  {space.name}: {_choices(space)}" for space in config.students or ()]


def told(folder: Path, record: Record) -> str:
    """What is said when a search has ended."""
    trained = {trial.model for trial in record.trials if trial.epochs}
    lines = [
        record.verdict or "",
        (
            f"{wording.plural(len(record.trials), 'trial')}, {wording.plural(len(trained), 'student')} trained, "
            f"{wording.duration(record.spent_seconds)} of {wording.duration(record.budget_seconds)}: {record.ended}"
        ),
    ]
    nearest = next((trial for trial in record.trials if trial.id == record.nearest), None)
    omitted = [trial.id for trial in record.trials if trial.state == "omitted"]
    if omitted:
        lines.append(f"not begun for want of time: {', '.join(omitted)}; a larger --budget goes on with these")
    if nearest is not None:
        lines.append(f"nearest of what is not feasible: {nearest.id}: {nearest.why}")
    lines += [f"search: {folder / PAGE}", f"report: {folder / 'report.html'}", f"recipe: {folder / RESOLVED}"]
    return "\n".join([*lines, *([] if record.selected is None else [f"serve it: limbeck serve {folder}"])])


def limits(record: Record) -> str:
    """What must hold, in words."""
    accept = record.accept
    drop = f"{record.metric} drops by {accept.max_drop_points:g} points at most (97.5 % confidence)"
    if accept.target_percent is not None:
        least = accept.target_percent - accept.max_drop_points
        drop = f"{record.metric} is above {least:g} % (97.5 % confidence)"
    parts = [drop]
    if accept.max_p95_ms is not None:
        parts.append(f"p95 at most {accept.max_p95_ms:g} ms")
    if accept.max_size_mb is not None:
        parts.append(f"at most {accept.max_size_mb:g} MB")
    return f"{', '.join(parts)}; then the {'fastest' if accept.prefer == 'latency' else 'smallest'}"


def _choices(space: StudentSpace) -> str:
    choices = space.choices
    models = [space.model] if isinstance(space.model, str) else list(space.model)
    said = [" or ".join(models)]
    for name, value in space.options.items():
        said.append(f"{name} {' or '.join(map(str, value)) if name in choices else value}")
    return f"{', '.join(said)}; {wording.plural(space.fit.epochs, 'epoch')}"


def trial_line(trial: Trial, spent: float) -> str:
    """One trial, when it is recorded."""
    sign = "feasible" if trial.feasible else trial.state if trial.state != "complete" else "infeasible"
    figures = []
    if trial.drop_points is not None:
        figures.append(f"drop {trial.drop_points:+.2f} (up to {trial.drop_upper:.2f})")
    elif trial.accuracy is not None:
        figures.append(f"accuracy {100 * trial.accuracy:.2f} % after epoch {trial.epochs}")
    if trial.p50_ms is not None and trial.size_bytes is not None:
        figures += [f"{trial.p50_ms:.3g} ms", f"p95 {trial.p95_ms:.3g} ms", wording.size(trial.size_bytes)]
    why = "" if trial.feasible else f": {trial.why}"
    return (
        f"[{wording.duration(spent)}] trial {trial.number} {trial.id}  {', '.join(figures)}  "
        f"{wording.duration(trial.cost)}  {sign}{why}"
    )
