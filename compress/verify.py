"""`limbeck verify`: is the model that answers requests still the one that was measured?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from compress.predictions import read_scores
from compress.recipe import parse_recipe
from compress.replay import ReplayResult, replay
from compress.report.write import read_report
from compress.rundir import read_about
from serve.errors import UserError
from serve.launch import start
from train.data import load_data


def verify_run(folder: Path, url: str | None) -> bool:
    """Replay the run's test split against `url`, or against a server started for it; True when nothing differs."""
    report = read_report(folder)
    if report.selected is None:
        raise UserError(f"{folder} has no selection to verify: {report.verdict}", "change the recipe and run it again")
    recipe = parse_recipe(read_about(folder)["recipe"], str(folder / "run.json"))
    data = load_data(recipe.data, recipe.seed, recipe.task)
    if data.fingerprint != report.data.fingerprint:
        raise UserError(
            f"the data at {recipe.data.source} is no longer what {folder} was measured on", "run the recipe again"
        )
    expected = read_scores(folder / "predictions" / f"{report.selected}.parquet")
    items = data.splits["test"].content
    with (
        _server(url, folder / "packages" / report.selected) as address,
        Console(stderr=True).status("replaying the test split") as status,
    ):
        result = replay(
            items,
            expected,
            data.classes,
            address,
            model_id=report.variant(report.selected).package_id or "",
            progress=lambda route, done, total: status.update(f"{route} {done}/{total}"),
        )
    _print(result)
    return result.ok


@contextmanager
def _server(url: str | None, package: Path) -> Iterator[str]:
    """The address to ask: `url`, or where none is given that of a server which runs while the block does."""
    if url:
        yield url
    else:
        with start(package) as server:
            yield server.url


def _print(result: ReplayResult) -> None:
    for name, route in result.routes.items():
        print(
            f"{name:<11} {route.compared}/{result.n} items  label differences {route.label_differences}  "
            f"score differences {route.score_differences}  largest {route.max_abs:.1e}  errors {route.errors}"
        )
        if route.first_problem:
            print(f"            first: {route.first_problem}")
    print("verified: the server answers as measured" if result.ok else "NOT verified: the server answers differently")
