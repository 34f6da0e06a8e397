"""`limbeck verify`: is the model that answers requests still the one that was measured?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from compress.measure.predictions import read_scores
from compress.recipe_file import parse_recipe
from compress.replay import ReplayResult, replay
from compress.report.schema import Report, Variant
from compress.report.write import read_report
from compress.rundir import read_about
from serve.errors import UserError, did_you_mean
from serve.launch import start
from train.data import load_data


def verify_run(folder: Path, url: str | None, variant_id: str | None = None) -> bool:
    """Replay the run's test split against `url`, or against a server started for it; True when nothing differs.

    What is served is the run's selection, or the packaged variant called `variant_id`. Raises UserError.
    """
    report = read_report(folder)
    variant = _variant(report, folder, variant_id)
    recipe = parse_recipe(read_about(folder)["recipe"], str(folder / "run.json"))
    data = load_data(recipe.data.model_copy(update={"unlabelled": None}), recipe.seed, recipe.task)
    if data.fingerprint != report.data.fingerprint:
        raise UserError(
            f"the data at {recipe.data.source} is no longer what {folder} was measured on", "run the recipe again"
        )
    expected = read_scores(folder / "predictions" / f"{variant.id}.parquet")
    items = data.splits["test"].content
    with (
        _server(url, folder / "packages" / variant.id) as address,
        Console(stderr=True).status("replaying the test split") as status,
    ):
        result = replay(
            items,
            expected,
            data.classes,
            address,
            model_id=variant.package_id or "",
            progress=lambda route, done, total: status.update(f"{route} {done}/{total}"),
        )
    _print(result)
    return result.ok


def _variant(report: Report, folder: Path, variant_id: str | None) -> Variant:
    if variant_id is None:
        if report.selected is None:
            hint = "change the recipe and run it again, or name a variant with --variant"
            raise UserError(f"{folder} has no selection to verify: {report.verdict}", hint)
        return report.variant(report.selected)
    packaged = {variant.id: variant for variant in report.variants if variant.package_id is not None}
    if variant_id not in packaged:
        raise UserError(f"{folder} has no package '{variant_id}'", did_you_mean(variant_id, packaged))
    return packaged[variant_id]


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
