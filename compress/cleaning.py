"""`limbeck clean`: what can be deleted of runs, how large it is, and what its loss would cost.

Only what limbeck itself makes is ever looked at, by its own names and in folders that are runs or searches. Links are
not followed. While something is at work in a folder, nothing of it is touched.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from compress.optimize.records import OPTIMIZE_JSON, SEARCH
from compress.rundir import FOLDS_JSON, RUN_JSON, SEEDS_JSON
from compress.tune.results import TRIALS_JSON
from compress.variants import HELD_OUT
from serve.errors import UserError

CHECKPOINTS, CACHES, WEIGHTS, WHOLE = "checkpoints", "caches", "weights", "whole"
# What each kind is, and what is lost with it.
COSTS = {
    CHECKPOINTS: "of trainings that were stopped or left over; the same command begins them again",
    CACHES: "of searches, and curves; a later search trains again what it would have found there",
    WEIGHTS: "of trained models; packages are served as before, the same command trains again",
    WHOLE: "runs and searches, packages and reports included",
}
_PARTIAL = ".partial"
_OF_RUNS = {
    CHECKPOINTS: (_PARTIAL,),
    CACHES: (SEARCH, "tensorboard"),
    WEIGHTS: ("teacher", "teachers", "students", HELD_OUT),
}
_OF_SEARCHES = {CHECKPOINTS: (_PARTIAL,), CACHES: ("teachers",), WEIGHTS: ()}


@dataclass(frozen=True)
class Found:
    """Something that can be deleted: a folder, a link to one, which alone would go, or what a series said together."""

    kind: str
    run: Path
    path: Path
    size_bytes: int


def find_runs(folder: Path) -> list[Path]:
    """The run or search at `folder`, or those one or two levels below it. Raises UserError where there is none."""
    if _is_run(folder):
        return [folder]
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", "expected a run directory, or a folder of them as runs/ is")
    below = [path for path in _folders(folder) for path in ([path] if _is_run(path) else _folders(path))]
    runs = [path for path in below if _is_run(path)]
    if not runs:
        raise UserError(
            f"{folder} is no run, and holds none", "expected a run directory, or a folder of them as runs/ is"
        )
    return runs


def find(runs: Iterable[Path], kinds: Sequence[str]) -> list[Found]:
    """What there is of these kinds, run by run, in the order of `kinds`."""
    found = []
    for run in runs:
        for kind in kinds:
            found += [Found(kind, run, path, size_of(path)) for path in _places(run, kind)]
    return found + (_pages({each.run for each in found}) if WHOLE in kinds else [])


def delete(found: Sequence[Found]) -> int:
    """Delete it, and say how many bytes that freed. Raises UserError, and deletes nothing, if a run is in progress."""
    with ExitStack() as held:
        for run in dict.fromkeys(each.run for each in found if _is_run(each.run)):  # not the folder of a series
            held.enter_context(_still(run))
        for each in found:
            _remove(each)
    return sum(each.size_bytes for each in found)


def size_of(path: Path) -> int:
    """Bytes of all files at and below `path`; a link counts as itself."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_symlink() or file.is_file())


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (RUN_JSON, OPTIMIZE_JSON, TRIALS_JSON))


def _folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.is_symlink()]


def _places(run: Path, kind: str) -> list[Path]:
    if kind == WHOLE:
        return [run]
    names = (_OF_RUNS if (run / RUN_JSON).exists() or (run / SEARCH).exists() else _OF_SEARCHES)[kind]
    return [run / name for name in names if (run / name).exists() or (run / name).is_symlink()]


def _pages(runs: Collection[Path]) -> list[Found]:
    """What series of runs say together, of those that go with every run in them: nobody could tell of what it is."""
    found = []
    for folder in sorted({run.parent for run in runs}):
        pages = [folder / name for name in (SEEDS_JSON, FOLDS_JSON) if (folder / name).is_file()]
        if pages and all(path in runs for path in _folders(folder) if _is_run(path)):
            found += [Found(WHOLE, folder, page, size_of(page)) for page in pages]
    return found


@contextmanager
def _still(run: Path) -> Iterator[None]:
    """Nobody is at work in `run`, nor can begin to, while the block runs. Raises UserError where somebody is."""
    with ExitStack() as held:
        for lock in {run / ".lock", *run.rglob("*.lock"), *run.rglob(".lock")}:
            if not lock.is_symlink():
                try:
                    held.enter_context(FileLock(lock, timeout=0))
                except Timeout:
                    raise UserError(
                        f"another limbeck is at work in {run}",
                        "wait for it, or name the other runs; nothing was deleted",
                    ) from None
        yield


def _remove(found: Found) -> None:
    inside = found.path == found.run or found.path.parent == found.run
    if not inside:
        raise AssertionError(f"{found.path} is not in {found.run}")
    if found.path.is_symlink() or found.path.is_file():
        found.path.unlink()
    else:
        shutil.rmtree(found.path)
