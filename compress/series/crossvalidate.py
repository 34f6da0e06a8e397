"""`limbeck crossvalidate`: one recipe over the folds of its data, each a run of its own, and what they say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from compress.console import Console
from compress.evidence.abstain import check_promise
from compress.lineage import with_lineage
from compress.recipe_file import load_recipe
from compress.report.write import read_report
from compress.rundir import FOLDS_JSON as FOLDS_JSON
from compress.rundir import write_text
from compress.series.folds import FoldRow, Folds, gather_folds
from compress.series.runs import run_series
from serve.errors import UserError
from train.data import load_data

_COLUMNS = ("variant", "errors", "accuracy, 95 % interval", "of one fold, sd", "macro F1", "drop", "the choice in")

_NOTE = "Intervals are over the items; that the folds' models learned from much the same items is not in them."


def crossvalidate(
    recipe: Path, folds: int, out: Path | None, changes: Sequence[str], command: str, console: Console
) -> tuple[Path, Folds]:
    """Run the recipe once for each fold, into a folder of its own, and write folds.json beside them.

    A fold is judged by models that were trained, distilled, quantized and chosen without it. A run that is there goes
    on, or is only read where it is whole. Raises UserError, and for what is wrong with the data of any fold before the
    first is run.
    """
    if folds < 2:
        raise UserError(f"{folds} folds leave nothing to judge on", "expected 2 or more")
    own = load_recipe(recipe, list(changes))
    if own.data.fold is not None:
        raise UserError(
            f"{recipe} is one fold already: data.fold = '{own.data.fold}'", "leave it out, and all are run in turn"
        )
    folder = out or Path("runs") / f"{own.name}-folds"
    resolved = {
        f"fold-{which}": load_recipe(recipe, [*changes, f'data.fold="{which}/{folds}"'])
        for which in range(1, folds + 1)
    }
    # Equal items, which a run may have in train alone, stand in two splits of some folds: it may be the last.
    known = {}
    for name, one in resolved.items():
        console.say(f"{name}: looking at its data")
        data = with_lineage(one, load_data(one.data, one.seed, one.task))
        check_promise(one.abstain, len(data.splits["validation"]))  # of which a fold may have one less than another
        known[folder / name] = data.fingerprint
    runs = run_series(resolved, folder, FOLDS_JSON, command, console)
    _check_data_stayed(known)
    together = gather_folds(runs, own.accept)
    write_text(folder / FOLDS_JSON, together.model_dump_json(indent=2) + "\n")
    return folder, together


def table(folds: Folds) -> str:
    """What the folds say together, as a Markdown table and a verdict."""
    lines = [
        f"{folds.recipe}: {folds.folds} folds, {sum(folds.items):,} items, each judged once; {folds.cpu}",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
        *(_line(row, folds.folds) for row in folds.rows),
        "",
        f"Drops in points of {_from(folds)}. {_NOTE}",
        verdict(folds),
    ]
    return "\n".join(lines)


def verdict(folds: Folds) -> str:
    """Whether what the recipe chooses is shown to keep its margin, and kept the limits on latency and size."""
    problems, each = folds.choice.problems, "what each fold chose, judged on what it never saw"
    if problems:
        return f"Not shown to keep the constraints: {each}: {'; '.join(problems)}."
    return f"Within the margin of {folds.margin_points:g} points: {each}."


def _check_data_stayed(known: Mapping[Path, str]) -> None:
    """Refuse folds that were cut from other data than the first look found: some items are in two, or in none."""
    for folder, fingerprint in known.items():
        if read_report(folder).data.fingerprint != fingerprint:
            raise UserError(
                f"the data have changed while the folds were run: {folder} has other items than were there at first",
                "start the same command again: it does anew the folds whose items are others now",
            )


def _from(folds: Folds) -> str:
    return folds.metric + (
        " from the teacher's" if folds.target_percent is None else f" from {folds.target_percent:g} %"
    )


def _line(row: FoldRow, folds: int) -> str:
    low, high = row.accuracy_ci95
    drop = ""
    if row.drop_points is not None and row.drop_points_ci95 is not None:
        drop = f"{row.drop_points:+.2f} ({row.drop_points_ci95[0]:+.2f} to {row.drop_points_ci95[1]:+.2f})"
    cells = [
        row.id,
        f"{sum(row.errors)}",
        f"{row.accuracy:.2f} ({low:.2f} to {high:.2f})",
        f"{row.deviation:.2f}",
        f"{row.macro_f1:.4f}",
        drop,
        f"{row.chosen} of {folds}" if row.chosen else "",
    ]
    return f"| {' | '.join(cells)} |"
