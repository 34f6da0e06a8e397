"""The commands of `limbeck` as Python functions, with the same errors: UserError, with a message and a hint.

    from compress import run, load

    done = run("digits", changes={"teacher.fit.epochs": 5})
    print(done.report.verdict)
    done.load().classify([Path("digit.png")])

What is heavy is imported when a function is called. Progress goes to stderr unless `quiet`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.recipes import named
from serve.errors import UserError

if TYPE_CHECKING:
    from compress.init.plan import Plan
    from compress.optimize.command import Outcome
    from compress.report.schema import Report
    from compress.series.folds import Folds
    from compress.series.seeds import Seeds
    from compress.use import Model

PathLike = Path | str
Changes = Mapping[str, Any] | Sequence[str]  # {"teacher.fit.epochs": 3}, or ["teacher.fit.epochs=3"] as with --set


@dataclass(frozen=True)
class Run:
    """A run that was made: its folder and its report."""

    path: Path
    report: Report

    @property
    def selected(self) -> str | None:
        """The variant that was chosen and held on test; None where nothing met the constraints."""
        return self.report.selected

    def load(self, variant: str | None = None) -> Model:
        """The model of the selection, or of the packaged variant called so. Raises UserError."""
        from compress.use import load

        return load(self.path if variant is None else self.path / "packages" / variant)

    def verify(self, url: str | None = None, variant: str | None = None) -> bool:
        """`limbeck verify`: replay the test split over HTTP; whether nothing differed. Raises UserError."""
        from compress.verify import verify_run

        return verify_run(self.path, url, variant)


def run(
    recipe: PathLike | Mapping[str, Any],
    out: PathLike | None = None,
    changes: Changes = (),
    *,
    tensorboard: bool = False,
    quiet: bool = False,
) -> Run:
    """`limbeck run`: train, distill, compress, evaluate and report; the same call goes on where it was stopped.

    `recipe` is a TOML file, the name of one of limbeck's own recipes, or the content of one as a mapping. Where nothing
    met the constraints, all is written all the same, and `selected` is None. Raises UserError.

    >>> run("digits", out="runs/short", changes={"teacher.fit.epochs": 5}).selected  # doctest: +SKIP
    'small-int8-static'
    """
    from compress.console import Console
    from compress.pipeline import run as run_recipe
    from compress.recipe_file import apply_change, load_recipe, parse_recipe

    wanted = _changes(changes)
    if isinstance(recipe, Mapping):
        content = json.loads(json.dumps(recipe))  # a copy, which the changes are made in
        for change in wanted:
            apply_change(content, change)
        resolved = parse_recipe(content, "the recipe")
    else:
        resolved = load_recipe(named(Path(recipe)), wanted)
    folder = Path("runs") / resolved.name if out is None else Path(out)
    return Run(folder, run_recipe(resolved, folder, Console(quiet), tensorboard=tensorboard))


def read_run(folder: PathLike) -> Run:
    """A run that was made before. Raises UserError where there is none."""
    from compress.report.write import read_report

    return Run(Path(folder), read_report(Path(folder)))


def report(folder: PathLike) -> Report:
    """`limbeck report`: write a run's pages again from its report.json, which is returned. Raises UserError."""
    from compress.report.write import read_report, write_report

    found = read_report(Path(folder))
    write_report(found, Path(folder))
    return found


def repeat(
    recipe: PathLike,
    seeds: Sequence[int] = (0, 1, 2),
    out: PathLike | None = None,
    changes: Changes = (),
    *,
    quiet: bool = False,
) -> tuple[Path, Seeds]:
    """`limbeck repeat`: one run for each seed; their folder, and what they are worth together. Raises UserError."""
    from compress.console import Console
    from compress.series.repeat import read_seeds
    from compress.series.repeat import repeat as repeat_recipe

    checked = read_seeds(",".join(map(str, seeds)))
    place = None if out is None else Path(out)
    return repeat_recipe(named(Path(recipe)), checked, place, _changes(changes), "compress.api.repeat", Console(quiet))


def crossvalidate(
    recipe: PathLike, folds: int = 5, out: PathLike | None = None, changes: Changes = (), *, quiet: bool = False
) -> tuple[Path, Folds]:
    """`limbeck crossvalidate`: one run for each fold; their folder, and what they say together. Raises UserError."""
    from compress.console import Console
    from compress.series.crossvalidate import crossvalidate as run_folds

    place, console = None if out is None else Path(out), Console(quiet)
    return run_folds(named(Path(recipe)), folds, place, _changes(changes), "compress.api.crossvalidate", console)


def tune(
    recipe: PathLike,
    out: PathLike | None = None,
    changes: Changes = (),
    *,
    storage: str | None = None,
    teacher_from: PathLike | None = None,
    quiet: bool = False,
) -> tuple[Path, str]:
    """`limbeck tune`: search as the recipe's [tune] says; the folder, and the best in a sentence. Raises UserError."""
    from compress.console import Console
    from compress.tune.command import tune as tune_recipe

    place = None if out is None else Path(out)
    teacher = None if teacher_from is None else Path(teacher_from)
    return tune_recipe(named(Path(recipe)), place, storage, tuple(_changes(changes)), teacher, Console(quiet).say)


def optimize(
    recipe: PathLike | None = None,
    *,
    model: str | None = None,
    data: str | None = None,
    budget: str | None = None,
    out: PathLike | None = None,
    changes: Changes = (),
    quiet: bool = False,
    **accept: Any,
) -> Outcome:
    """`limbeck optimize`: the fastest or smallest that keeps the limits of `accept`, fields of the recipe's [accept].

    Raises UserError.

    >>> optimize(model="run:runs/digits", budget="10m", max_drop_points=2.0, prefer="size")  # doctest: +SKIP
    """
    from compress.console import Console
    from compress.optimize.command import Asked
    from compress.optimize.command import optimize as search

    file, place = (None if path is None else Path(path) for path in (recipe, out))
    own = None if file is None else named(file)
    return search(Asked(own, model, data, place, _changes(changes), accept, budget), Console(quiet))


def init(
    path: PathLike,
    out: PathLike = "recipe.toml",
    name: str | None = None,
    teacher: str | None = None,
    *,
    force: bool = False,
) -> Plan:
    """`limbeck init`: look at data and write a recipe that fits them; what was chosen, and why. Raises UserError."""
    from compress.init.write import init as write_recipe

    return write_recipe(Path(path), Path(out), name, teacher, force)


@contextmanager
def serving(target: PathLike | None = None, port: int = 0) -> Iterator[str]:
    """`limbeck serve`, for as long as a block runs: the address of a server on loopback, on a free port where it is 0.

    Raises UserError.

    >>> with serving("runs/digits") as url:  # doctest: +SKIP
    ...     httpx.get(f"{url}/model").json()["id"]
    """
    from serve.launch import start

    with start(None if target is None else Path(target), port) as server:
        yield server.url


def _changes(changes: Changes) -> list[str]:
    """As `--set` takes them. Raises UserError for a value that no recipe holds."""
    if isinstance(changes, str):
        raise UserError(
            f"changes is the text {changes!r}", 'expected {"teacher.fit.epochs": 3}, or a list of "key=value"'
        )
    if not isinstance(changes, Mapping):
        return list(changes)
    return [f"{key}={_toml(key, value)}" for key, value in changes.items()]


def _toml(key: str, value: Any) -> str:
    plain = (str, bool, int, float)
    if isinstance(value, (list, tuple)) and all(isinstance(each, plain) for each in value):
        return json.dumps(list(value))
    if isinstance(value, plain):
        return json.dumps(value)
    raise UserError(f"changes[{key!r}] is {value!r}", "expected text, a number, true or false, or a list of these")
