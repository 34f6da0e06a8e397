"""What the shell offers for an argument: recipes, runs, packages, names of models.

Asked at each TAB, so nothing heavy is imported. Where nothing is offered, bash completes files by itself, so folders on
the way to a run are left to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from compress.recipes import named, names

_RUN_FILES = ("run.json", "optimize.json", "trials.json", "seeds.json", "folds.json")


def recipes(incomplete: str) -> list[str]:
    """TOML files where the typed path leads, and the names of limbeck's own recipes."""
    here = [str(path) for path in _beside(incomplete) if path.suffix == ".toml"]
    return [*here, *_beginning(incomplete, names())]


def runs(incomplete: str) -> list[str]:
    """Run directories where the typed path leads, and those in runs/."""
    usual = sorted(Path("runs").glob("*")) if "runs/".startswith(incomplete) else []
    return list(dict.fromkeys(str(path) for path in [*_beside(incomplete), *usual] if _is_run(path)))


def packages(incomplete: str) -> list[str]:
    """What can be served: runs, and model packages; those of a run once its path is typed whole."""
    run = Path(incomplete or ".")
    inside = sorted((run / "packages").glob("*")) if incomplete and _is_run(run) else []
    found = [path for path in [*_beside(incomplete), *inside] if (path / "manifest.json").is_file()]
    return [*runs(incomplete), *map(str, found)]


def variants(ctx: typer.Context, incomplete: str) -> list[str]:
    """The packages of the run that stands on the command line."""
    folder = Path(_given(ctx, "folder")) / "packages"
    return _beginning(incomplete, (path.name for path in sorted(folder.glob("*"))))


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    """The models of the recipe that stands on the command line."""
    import tomllib

    try:
        content = tomllib.loads(named(Path(_given(ctx, "recipe"))).read_text(encoding="utf-8"))
        others = [str(model["name"]) for key in ("teachers", "students") for model in content.get(key, [])]
    except (OSError, ValueError, KeyError, TypeError):  # the command itself will say what is wrong
        return []
    return _beginning(incomplete, ["teacher", *others])


def _given(ctx: typer.Context, argument: str) -> str:
    """The command's argument of that name. Behind an option that has no value yet, it was not parsed."""
    return str(ctx.params.get(argument) or next((word for word in ctx.args if not word.startswith("-")), ""))


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _beside(incomplete: str) -> list[Path]:
    """All files and folders whose path begins as typed, but the hidden ones."""
    head, slash, tail = incomplete.rpartition("/")
    folder = Path(head + slash)
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.startswith(tail) and not path.name.startswith("."))


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in _RUN_FILES)
