"""The run directory: every stage leaves its output and a record there, atomically, and is skipped when nothing changed.

run.json              the resolved recipe, versions, hardware and the records of the stages
.partial/             what a stage has written so far; moved to its place when the stage is done
.partial/answers/     what teachers answered to views that do not change, until the run ends
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from serve.errors import UserError
from serve.package import CARD, SERVING

RUN_JSON = "run.json"
# What runs in folders of a common one say together, beside them: of `limbeck repeat` and `limbeck crossvalidate`.
SEEDS_JSON, FOLDS_JSON = "seeds.json", "folds.json"
ANSWERS = "answers"
# What may change in a package without changing an answer; tuning a server must not make the next run redo it.
_OUTSIDE_THE_HASH = (CARD, SERVING)
_PARTIAL = ".partial"
Result = TypeVar("Result", bound=BaseModel)
Announce = Callable[[str, str, Mapping[str, Any]], None]  # a stage, "unchanged", "started" or "done", and its record


class NotDoneError(Exception):
    """A stage is not there as it would be done now; see `RunDir.as_it_is`."""


class RunDir:
    """One run's folder. Made by `open_run`, which holds its lock."""

    def __init__(
        self,
        path: Path,
        about: Mapping[str, Any],
        on_stage: Callable[[str, str, float], None],
        announce: Announce | None = None,
    ) -> None:
        self.path = path
        self._on_stage = on_stage
        self._announce = announce or (lambda *_: None)
        self._stages: dict[str, Any] = _read_stages(path)
        self._about = dict(about)
        self._only_known = False
        self._write()

    @contextmanager
    def as_it_is(self) -> Iterator[None]:
        """Within it, nothing is done anew: NotDoneError for a stage that would be."""
        before, self._only_known = self._only_known, True
        try:
            yield
        finally:
            self._only_known = before

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        result_type: type[Result],
        work: Callable[[Path], Result],
        output: str | None = None,
    ) -> Result:
        """The result of `work`, from the record when neither the inputs nor the output on disk have changed since.

        `work` gets a path under .partial/ to write its output to (a file or a folder), which then moves to `output`.
        The path is the same for the same inputs, so work that leaves checkpoints there finds them again.
        """
        from compress.fingerprint import fingerprint  # torch stays out of the process that only looks into a run

        key = fingerprint({"stage": name, "inputs": inputs})
        known = self._stages.get(name)
        if known and known["inputs"] == key and known["digest"] == self._digest(output):
            try:
                result = result_type.model_validate(known["result"])
            except ValidationError:
                pass  # written by another version: do it again
            else:
                self._on_stage(name, "unchanged", known["seconds"])
                self._announce(name, "unchanged", known)
                return result
        if self._only_known:
            raise NotDoneError(name)
        partial = self._partial(name, key)
        self._on_stage(name, "started", 0.0)
        self._announce(name, "started", {"partial": str(partial)})
        started = time.perf_counter()
        result = work(partial)
        seconds = round(time.perf_counter() - started, 2)
        if output is not None:
            move_into_place(partial, self.path / output)
        self._stages[name] = {
            "inputs": key,
            "output": output,
            "digest": self._digest(output),
            "seconds": seconds,
            "result": result.model_dump(mode="json"),
        }
        self._write()
        self._on_stage(name, "done", seconds)
        self._announce(name, "done", self._stages[name])
        return result

    def take(self, records: Iterable[tuple[str, dict[str, Any]]], source: Path) -> None:
        """Take over stages from the run directory `source`, given as (name, record)."""
        for name, record in records:
            output = record["output"]
            known = self._stages.get(name, {})
            if known.get("inputs") == record["inputs"] and known["digest"] == record["digest"] == self._digest(output):
                continue
            if output is not None:
                partial = self._partial(name, record["inputs"])
                remove(partial)
                copy = shutil.copytree if (source / output).is_dir() else shutil.copy2
                copy(source / output, partial)
                move_into_place(partial, self.path / output)
            self._stages[name] = record
        self._write()

    @property
    def answers(self) -> Path:
        """Where teachers' answers are kept from one student to the next; deleted with what is not finished."""
        return self.path / _PARTIAL / ANSWERS

    def digest(self, name: str) -> str:
        """The hash of what stage `name` left on disk, to be an input of the stages that read it."""
        return str(self._stages[name]["digest"])

    def has(self, name: str) -> bool:
        """Whether stage `name` was ever done in this folder."""
        return name in self._stages

    def seconds(self) -> dict[str, float]:
        """How long each stage took, when it was done."""
        return {name: record["seconds"] for name, record in self._stages.items()}

    def forget_all_but(self, names: list[str]) -> None:
        """Drop records and outputs of stages that the recipe no longer has."""
        for name in [name for name in self._stages if name not in names]:
            output = self._stages.pop(name)["output"]
            if output is not None:
                remove(self.path / output)
        self._write()

    def _partial(self, name: str, key: str) -> Path:
        folder = self.path / _PARTIAL
        folder.mkdir(exist_ok=True)
        stem = name.replace("/", "--")
        partial = folder / f"{stem}-{key[:12]}"
        for stale in folder.glob(f"{stem}-????????????"):
            if stale != partial:
                remove(stale)
        return partial

    def _digest(self, output: str | None) -> str | None:
        return None if output is None else tree_digest(self.path / output)

    def _write(self) -> None:
        write_text(self.path / RUN_JSON, json.dumps({**self._about, "stages": self._stages}, indent=2) + "\n")


@contextmanager
def open_run(
    path: Path,
    about: Mapping[str, Any],
    on_stage: Callable[[str, str, float], None] = lambda *_: None,
    announce: Announce | None = None,
    keep_unfinished: bool = False,
) -> Iterator[RunDir]:
    """The run directory at `path`, made if need be and locked against a second command. Raises UserError.

    What stages have not finished is deleted in the end, unless it is to be kept for another time.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"another limbeck is at work in {path}", "wait for it, or give another folder with --out"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write the run directory {path}: {error.strerror}", "give another with --out") from None
    try:
        yield RunDir(path, about, on_stage, announce)
        if not keep_unfinished:
            shutil.rmtree(path / _PARTIAL, ignore_errors=True)
    finally:
        lock.release()


def adopt_stages(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copy stages that were done in the run directory `source`, with their outputs, into `target`.

    What `target` has already from the same inputs stays. The run there finds them unchanged.
    """
    theirs = _read_stages(source)
    with open_run(target, read_about(target) if (target / RUN_JSON).exists() else {}) as rundir:
        rundir.take([(name, theirs[name]) for name in names if name in theirs], source)


def tree_digest(path: Path) -> str | None:
    """sha256 over the names and bytes of a file or a folder; None where there is nothing."""
    if not path.exists():
        return None
    digest = hashlib.sha256()
    files = (
        [path]
        if path.is_file()
        else sorted(file for file in path.rglob("*") if file.is_file() and file.name not in _OUTSIDE_THE_HASH)
    )
    for file in files:
        name = file.relative_to(path).as_posix()
        digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def move_into_place(partial: Path, place: Path) -> None:
    """Rename `partial` to `place`, in the stead of what was there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():  # a folder cannot be renamed over another
        remove(place)
    partial.replace(place)


def remove(path: Path) -> None:
    """Delete a file or a folder; nothing happens where there is none."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_about(path: Path) -> dict[str, Any]:
    """What run.json says of the run at `path`. Raises UserError where it is no run."""
    file = path / RUN_JSON
    try:
        about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}", "is this a run directory?") from None
    except ValueError:
        raise UserError(f"{file} is not a run's record", "give another folder with --out, or delete this one") from None
    return about


def _read_stages(path: Path) -> dict[str, Any]:
    if not (path / RUN_JSON).exists():
        return {}
    stages: dict[str, Any] = read_about(path).get("stages", {})
    return stages
