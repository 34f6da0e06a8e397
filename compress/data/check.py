"""`limbeck data check`: how a recipe's data, or a file or folder, would be split, and all that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from serve.errors import UserError
from serve.manifest import Task
from train.data import SPLITS, DataConfig, Examined, examine, how_to_mend
from train.repairs import Watch
from train.sources import guess_source, source_names
from train.sources.problems import EXAMPLES, Problem

_COLUMNS = 5  # classes that get a column each; of more, the smallest and the largest are shown
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim", "repaired": "green"}


def check_data(target: str) -> bool:
    """Print how the data would be split and every problem with it; True when a run would accept it."""
    config, seed, task = what_to_check(target)
    examined = _examine(config, seed, task)
    console = Console(highlight=False)
    console.print(f"{escape(config.source)}: {_outline(examined)}", soft_wrap=True)
    console.print(_table(examined))
    for verdict, problem in sorted(examined.problems, key=lambda found: list(_STYLES).index(found[0])):
        _print_problem(console, verdict, problem)
    if examined.obstacle is not None:
        console.print(f"[{_STYLES['error']}]error[/]  {escape(str(examined.obstacle))}", soft_wrap=True)
        console.print(f"       hint: {escape(examined.obstacle.hint)}", soft_wrap=True)
    console.print("a run would accept this data" if examined.accepted else "a run would refuse this data")
    return examined.accepted


def what_to_check(target: str) -> tuple[DataConfig, int, Task | None]:
    """The [data], seed and task of a recipe; or of a source, as "csv:FILE", or a path, with all else by default."""
    path = Path(target)
    if path.suffix == ".toml":
        from compress.recipe_file import load_recipe  # heavy: it knows every model

        recipe = load_recipe(path)
        return recipe.data, recipe.seed, recipe.task
    if target.partition(":")[0] in source_names():
        return DataConfig(source=target), 0, None
    if path.exists():
        return DataConfig(source=guess_source(path)), 0, None
    raise UserError(f"nothing at {target}", "expected a recipe, a file or folder, or a source such as csv:reviews.csv")


def _examine(config: DataConfig, seed: int, task: Task | None) -> Examined:
    columns = (TextColumn("looking into images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None, visible=False)
        watch: Watch = lambda done, total: progress.update(bar, completed=done, total=total, visible=True)  # noqa: E731
        return examine(config, seed, task, decode=True, watch=watch)


def _outline(examined: Examined) -> str:
    items = sum(map(len, examined.splits.values()))
    classes = len(examined.classes)
    return f"{items:,} {examined.task}s, {classes} {'class' if classes == 1 else 'classes'}"


def _table(examined: Examined) -> Table:
    """Splits by size and class."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("split", no_wrap=True)
    table.add_column("items", justify="right", no_wrap=True)
    few = len(examined.classes) <= _COLUMNS
    for name in examined.classes if few else ("smallest class", "median", "largest class"):
        table.add_column(escape(name), justify="right", no_wrap=True, overflow="ellipsis")
    for name in SPLITS:
        if name in examined.splits:
            items = examined.splits[name]
            counts = np.bincount(items.labels, minlength=len(examined.classes))
            shown = [f"{count:,}" for count in counts] if few else _spread(counts, examined.classes)
            table.add_row(name, f"{len(items):,}", *shown)
    if examined.data is not None and examined.data.unlabelled is not None:
        table.add_row("unlabelled", f"{len(examined.data.unlabelled.items):,}")
    return table


def _spread(counts: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    low, high = int(counts.argmin()), int(counts.argmax())
    return [
        f"{counts[low]:,} {escape(classes[low])}",
        f"{np.median(counts):,.0f}",
        f"{counts[high]:,} {escape(classes[high])}",
    ]


def _print_problem(console: Console, verdict: str, problem: Problem) -> None:
    name = "left out" if verdict == "repaired" else verdict
    count = f": {problem.count:,}" if problem.count > 1 else ""
    console.print(f"[{_STYLES[verdict]}]{name}[/]  {escape(problem.kind.title)}{count}", soft_wrap=True)
    for example in problem.examples:
        console.print(f"    {escape(example)}", soft_wrap=True)
    if problem.count > EXAMPLES:
        console.print(f"    and {problem.count - EXAMPLES:,} more")
    hint = how_to_mend(problem) if verdict == "error" else problem.kind.hint
    if hint and verdict != "repaired":
        console.print(f"    hint: {escape(hint)}", soft_wrap=True)
