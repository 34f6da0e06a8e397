"""`limbeck repeat`: one recipe with several seeds, each a run of its own, and what they are worth together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compress.console import Console
from compress.evidence.drops import spoken
from compress.recipe_file import load_recipe
from compress.rundir import SEEDS_JSON as SEEDS_JSON
from compress.rundir import write_text
from compress.series.gains import Difference
from compress.series.runs import run_series
from compress.series.seeds import Row, Seeds, gather
from serve.errors import UserError

_INTERVAL = "the 95 % interval over the test items with these seeds"


def read_seeds(text: str) -> tuple[int, ...]:
    """The seeds of "0,1,2". Raises UserError."""
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--seeds {text}: expected whole numbers", "for example --seeds 0,1,2") from None
    if len(set(seeds)) < len(seeds) or len(seeds) < 2 or min(seeds) < 0:
        raise UserError(
            f"--seeds {text}: expected two or more different seeds, none below 0", "for example --seeds 0,1,2"
        )
    return seeds


def repeat(
    recipe: Path, seeds: Sequence[int], out: Path | None, changes: Sequence[str], command: str, console: Console
) -> tuple[Path, Seeds]:
    """Run the recipe once for each seed, into a folder of its own, and write seeds.json beside them.

    All have the same splits, drawn by the recipe's own seed: what differs is training alone. A run that is there goes
    on, or is only read where it is whole. Raises UserError.
    """
    own = load_recipe(recipe, list(changes))
    drawn_by = own.seed if own.data.seed is None else own.data.seed
    resolved = [load_recipe(recipe, [*changes, f"data.seed={drawn_by}", f"seed={seed}"]) for seed in seeds]
    folder = out or Path("runs") / f"{own.name}-seeds"
    named = {f"seed-{one.seed}": one for one in resolved}
    together = gather(run_series(named, folder, SEEDS_JSON, command, console))
    write_text(folder / SEEDS_JSON, together.model_dump_json(indent=2) + "\n")
    return folder, together


def table(seeds: Seeds) -> str:
    """What the seeds are worth together, as a Markdown table: by the recipe's metric, and accuracy beside it."""
    by_accuracy = seeds.metric == "accuracy"
    columns = [
        *("variant", f"{spoken(seeds.metric)}, mean", "of one seed, sd"),
        *(() if by_accuracy else ("accuracy, mean",)),
        *("errors", "against the teacher", "against its control", "accepted in", "the choice in", "faster", "smaller"),
    ]
    lines = [
        f"{seeds.recipe}: seeds {', '.join(map(str, seeds.seeds))}; {seeds.test_items:,} test items; {seeds.cpu}",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
        *(_line(row, len(seeds.seeds)) for row in seeds.rows),
        "",
        f"Differences in points of {spoken(seeds.metric)}, mean of the seeds; in brackets {_INTERVAL}.",
    ]
    return "\n".join(lines)


def _line(row: Row, seeds: int) -> str:
    shown = row.judged or row
    cells = [
        row.id,
        f"{shown.mean:.2f}",
        f"{shown.deviation:.2f}",
        *([f"{row.mean:.2f}"] if row.judged else []),
        ", ".join(map(str, row.errors)),
        _difference(shown.against_teacher),
        _difference(shown.against_control),
        f"{row.accepted} of {seeds}",
        f"{row.chosen} of {seeds}" if row.chosen else "",
        f"{row.speedup:.1f}x",
        f"{row.smaller:.1f}x",
    ]
    return f"| {' | '.join(cells)} |"


def _difference(found: Difference | None) -> str:
    return "" if found is None else f"{found.points:+.2f} ({found.ci95[0]:+.2f} to {found.ci95[1]:+.2f})"
