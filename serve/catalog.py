"""Which packages are served, each under a name of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serve.errors import UserError
from serve.locate import BUNDLED, PACKAGES, REPORT, find_package
from serve.locate import ENV as DEFAULT_ENV
from serve.package import MANIFEST

ENV = "LIMBECK_PACKAGES"
MAX_MODELS = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_EXPECTED = "expected NAME=PATH, the name of at most 64 letters, digits, '.', '_' and '-'"


@dataclass(frozen=True)
class Catalog:
    """`targets` are absolute folders of packages, or of runs, which stand for what they selected."""

    default: str
    targets: dict[str, Path]

    def packages(self) -> dict[str, Path]:
        """The package behind each name, the default's first. Raises UserError where one cannot be found."""
        return {name: find_package(target) for name, target in self.targets.items()}


def read_catalog(environ: Mapping[str, str] = os.environ) -> Catalog:
    """What LIMBECK_PACKAGE (else a Bento's own package, else the newest run) and LIMBECK_PACKAGES name.

    Raises UserError.
    """
    named = environ.get(DEFAULT_ENV)
    target = Path(named).resolve() if named else _found(find_package())
    return catalog(target, [entry for entry in environ.get(ENV, "").split(",") if entry.strip()])


def _found(package: Path) -> Path:
    """What stands for a package that nobody named: its run, so that what the run selects later is followed."""
    return package if package == BUNDLED else package.parent.parent


def catalog(target: Path, also: Sequence[str] = ()) -> Catalog:
    """`target` as the default, under its own name, and what `also` names: "NAME=PATH" each. Raises UserError."""
    default = own_name(target)
    targets = {default: target.resolve()}
    for entry in also:
        name, sign, path = entry.strip().partition("=")
        if not sign or not path or _NAME.fullmatch(name) is None:
            raise UserError(f"{entry.strip()!r} names no package to serve", _EXPECTED)
        if name in targets:
            raise UserError(f"two packages are to be served under the name '{name}'", "give each a name of its own")
        if "," in path:
            raise UserError(f"the path {path!r} has a comma, which separates packages in {ENV}", "rename the folder")
        targets[name] = Path(path).resolve()
    if len(targets) > MAX_MODELS:
        raise UserError(f"{len(targets)} packages are named", f"at most {MAX_MODELS} are served by one server")
    return Catalog(default, targets)


def own_name(target: Path) -> str:
    """The name of a package or run that was given none: its folder's, a run's for what the run selected."""
    target = target.resolve()
    run = target.parent.parent
    inside = target.parent.name == PACKAGES and (run / REPORT).is_file()
    name = run.name if inside else target.name
    return name if _NAME.fullmatch(name) else "default"


def packages_in(folder: Path) -> dict[str, Path]:
    """The packages in a folder, by their own folders' names."""
    return {path.name: path for path in sorted(folder.iterdir()) if is_name(path.name) and (path / MANIFEST).is_file()}


def is_name(name: str) -> bool:
    """Whether a model may be called so. No such name has a separator, or is `.` or `..`."""
    return _NAME.fullmatch(name) is not None
