"""Which model package to serve: one that is named, or the newest run's choice."""

from __future__ import annotations

import json
import os
from pathlib import Path

from serve.errors import UserError, said
from serve.package import MANIFEST

ENV = "LIMBECK_PACKAGE"
RUNS, REPORT, PACKAGES = Path("runs"), "report.json", "packages"
# Where a Bento keeps its package: beside serve/, nowhere else.
BUNDLED = Path(__file__).resolve().parent.parent / "package"
_START_HERE = f"run `limbeck run digits` first, or set {ENV} to a package or a run"


def find_package(target: Path | None = None) -> Path:
    """The absolute folder of the package to serve.

    `target` (else the environment's LIMBECK_PACKAGE) is a package folder, or a run directory, which stands for the
    variant that its report selected. With neither, it is the one beside `serve/` in a Bento, else that of the newest
    run under `runs/` that selected one. The package itself is not read here.
    Raises UserError where there is nothing to serve.
    """
    if target is None and os.environ.get(ENV):
        target = Path(os.environ[ENV])
    if target is None and (BUNDLED / MANIFEST).is_file():
        return BUNDLED
    if target is None:
        return _newest_selected(RUNS)
    if (target / REPORT).is_file():
        return _selected_package(target)
    if (target / MANIFEST).is_file():
        return target.resolve()
    what = "has neither a manifest.json nor a report.json" if target.is_dir() else "is not there"
    raise UserError(f"nothing to serve: {target} {what}", "name a package folder, or the directory of a completed run")


def _newest_selected(runs: Path) -> Path:
    reports = sorted(runs.glob(f"*/{REPORT}"), key=lambda report: report.stat().st_mtime, reverse=True)
    for report in reports:
        if _selected(report) is not None:
            return _selected_package(report.parent)
    found = "no run selected a model" if reports else "there is no completed run"
    raise UserError(f"nothing to serve: {found} under {runs.resolve()}", _START_HERE)


def _selected_package(run: Path) -> Path:
    name = _selected(run / REPORT)
    if name is None:
        raise UserError(
            f"nothing to serve: the run {run} selected no model, since none met its constraints",
            f"its report says why; loosen [accept] in the recipe, or set {ENV} to one of its packages",
        )
    folder = (run / PACKAGES).resolve()
    package = (folder / name).resolve()
    if package.parent != folder:  # a name with separators, or a link that leads out of the run
        raise UserError(f"{run / REPORT} selects {name!r}, which is outside {folder}", "run the recipe again")
    if not (package / MANIFEST).is_file():
        raise UserError(f"{run / REPORT} selects {name!r}, but {package} holds no package", "run the recipe again")
    return package


def _selected(report: Path) -> str | None:
    """The `selected` of a report: a variant id, or None if nothing met the constraints."""
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
        name = content["selected"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {report}: {said(error)}", "run the recipe again, or delete that run") from None
    if name is not None and not isinstance(name, str):
        raise UserError(f"{report}: `selected` is {name!r}, neither a variant id nor null", "run the recipe again")
    return name
