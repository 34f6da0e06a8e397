"""Several runs of one recipe that differ in one setting, each in a folder of its own inside a common one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from compress.console import Console
from compress.pipeline import run
from compress.recipe import Recipe
from compress.rundir import RUN_JSON
from serve.errors import UserError
from train.epochs import OnEpoch


def run_series(recipes: Mapping[str, Recipe], folder: Path, page: str, command: str, console: Console) -> list[Path]:
    """Run each recipe in `folder`/NAME, in turn; the run directories.

    A run that is there goes on, or is only read where it is whole. `folder`/`page`, which tells of them together, is
    deleted before the first stage that is done anew: what lies there is never of other runs than those beside it.
    Raises UserError, also where `folder` is a run.
    """
    if (folder / RUN_JSON).exists():
        raise UserError(f"{folder} is a run directory", "give the series a folder of its own with --out")
    told = _Heedful(console, lambda: (folder / page).unlink(missing_ok=True))
    for name, recipe in recipes.items():
        console.say(f"{name}: {folder / name}")
        run(recipe, folder / name, told, command)
    _tell_of_others(recipes, folder, console)
    return [folder / name for name in recipes]


def _tell_of_others(names: Collection[str], folder: Path, console: Console) -> None:
    """Runs of an earlier start with more seeds or folds lie beside these, and look as if they were of them."""
    kinds = {name.rpartition("-")[0] for name in names}
    others = [
        place.parent.name
        for place in sorted(folder.glob(f"*/{RUN_JSON}"))
        if place.parent.name not in names and place.parent.name.rpartition("-")[0] in kinds
    ]
    if others:
        console.say(f"{folder} also holds {', '.join(others)}, of an earlier start: not counted here, and left alone")


class _Heedful(Console):
    """Tells another console all, and calls `before` ahead of each stage that is done anew."""

    def __init__(self, console: Console, before: Callable[[], None]) -> None:
        super().__init__(quiet=True)
        self._console, self._before = console, before

    def say(self, text: str) -> None:
        self._console.say(text)

    def detail(self, text: str) -> None:
        self._console.detail(text)

    def stage(self, name: str, state: str, seconds: float) -> None:
        if state == "started":
            self._before()
        self._console.stage(name, state, seconds)

    @contextmanager
    def epochs(self) -> Iterator[OnEpoch]:
        with self._console.epochs() as show:
            yield show

    @contextmanager
    def count(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        with self._console.count(what, total) as one_more:
            yield one_more
